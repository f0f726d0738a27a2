from Cython.Build import cythonize
from setuptools import Extension, setup

import gopoll

setup(
    ext_modules=cythonize(
        [Extension("echoloop", ["echoloop.pyx"])],
        include_path=[gopoll.get_include()],
        compiler_directives={"language_level": 3, "freethreading_compatible": True},
    )
)
