# DatagramTransport is a Python class: nothing here for C.
