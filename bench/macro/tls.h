/* TLS 1.3 of OpenSSL, which is looked for when --tls asks for it: no headers are needed to build.
   Included by load.c alone. One cipher, so that all servers do the same work; certificates are not
   looked at. The functions are read(2) and write(2) in what they return and leave in errno. */

#include <dlfcn.h>

enum { SSL_MIN_VERSION = 123, SSL_MODE = 33, TLS_1_3 = 0x304, PARTIAL_AND_MOVING = 1 | 2 };
enum { WANT_READ = 2, WANT_WRITE = 3, ZERO_RETURN = 6 };

static void *ssl_ctx, *(*ssl_new)(void *);
static int (*ssl_set_fd)(void *, int), (*ssl_error)(const void *, int);
static int (*ssl_read)(void *, void *, int), (*ssl_write)(void *, const void *, int);
static void (*ssl_set_connect_state)(void *), (*err_clear)(void);

/* Find the library and make a context; return what is missing, or NULL. */
static const char *tls_load(void)
{
    const void *(*method)(void);
    void *(*ctx_new)(const void *);
    long (*ctrl)(void *, int, long, void *);
    int (*ciphers)(void *, const char *);
    void *lib = dlopen("libssl.so.3", RTLD_NOW);
    if (lib == NULL && (lib = dlopen("libssl.so.1.1", RTLD_NOW)) == NULL)
        return "no libssl.so.3 and no libssl.so.1.1";
    const struct {
        const char *name;
        void *where;
    } wanted[] = {
        {"TLS_client_method", &method},       {"SSL_CTX_new", &ctx_new},
        {"SSL_CTX_ctrl", &ctrl},              {"SSL_CTX_set_ciphersuites", &ciphers},
        {"SSL_new", &ssl_new},                {"SSL_set_fd", &ssl_set_fd},
        {"SSL_get_error", &ssl_error},        {"SSL_set_connect_state", &ssl_set_connect_state},
        {"SSL_read", &ssl_read},              {"SSL_write", &ssl_write},
        {"ERR_clear_error", &err_clear},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        void *found = dlsym(lib, wanted[i].name);
        if (found == NULL)
            return wanted[i].name;
        memcpy(wanted[i].where, &found, sizeof found);
    }
    if ((ssl_ctx = ctx_new(method())) == NULL || !ctrl(ssl_ctx, SSL_MIN_VERSION, TLS_1_3, NULL) ||
        !ciphers(ssl_ctx, "TLS_AES_128_GCM_SHA256"))
        return "no TLS 1.3 in OpenSSL";
    ctrl(ssl_ctx, SSL_MODE, PARTIAL_AND_MOVING, NULL);
    return NULL;
}

/* Return a client's end over a descriptor; it shakes hands when it is first written to. */
static void *tls_over(int fd)
{
    void *ssl = ssl_new(ssl_ctx);
    if (ssl != NULL && ssl_set_fd(ssl, fd))
        ssl_set_connect_state(ssl);
    return ssl;
}

/* Return what a call that has returned *n* would have returned on a socket. *blocked: it waits to
   write. */
static ssize_t tls_result(void *ssl, int n, bool *blocked)
{
    int why = n > 0 ? 0 : ssl_error(ssl, n);
    *blocked = why == WANT_WRITE;
    if (n > 0 || why == ZERO_RETURN)
        return n > 0 ? n : 0;
    if (why == WANT_READ || why == WANT_WRITE)
        errno = EAGAIN;
    else if (errno == 0 || errno == EAGAIN)
        errno = EPROTO;
    return -1;
}

static ssize_t tls_read(void *ssl, void *buffer, size_t n, bool *blocked)
{
    err_clear();
    errno = 0;
    return tls_result(ssl, ssl_read(ssl, buffer, (int)n), blocked);
}

static ssize_t tls_write(void *ssl, const void *data, size_t n, bool *blocked)
{
    err_clear();
    errno = 0;
    return tls_result(ssl, ssl_write(ssl, data, (int)n), blocked);
}
