/* The bytes of a connection: as they are or, when the options ask for it, inside TLS. */
#include "amqpload.h"

#ifdef WITH_TLS
#include <openssl/ssl.h>

/* whoever answers is believed: these are measurements */
static SSL_CTX *context(void) {
    static SSL_CTX *made;
    if (!made)
        made = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_mode(made, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return made;
}

int start_tls(conn *c) {
    c->tls = SSL_new(context());
    if (c->tls && SSL_set_fd(c->tls, c->fd) && SSL_connect(c->tls) == 1)
        return 0;
    snprintf(last_error, sizeof last_error, "no TLS handshake");
    errno = EPROTO;
    return -1;
}

static ssize_t as_of_a_socket(conn *c, int n) {
    if (n > 0)
        return n;
    int why = SSL_get_error(c->tls, n);
    if (why == SSL_ERROR_ZERO_RETURN)
        return 0;
    errno = why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? EAGAIN : EPIPE;
    return -1;
}

ssize_t send_bytes(conn *c, const void *bytes, size_t n) {
    if (!c->tls)
        return send(c->fd, bytes, n, MSG_NOSIGNAL);
    return as_of_a_socket(c, SSL_write(c->tls, bytes, (int)n));
}

ssize_t receive_bytes(conn *c, void *bytes, size_t n) {
    if (!c->tls)
        return recv(c->fd, bytes, n, 0);
    return as_of_a_socket(c, SSL_read(c->tls, bytes, (int)n));
}

int has_pending(const conn *c) {
    return c->tls && SSL_pending(c->tls) > 0;
}

void close_socket(conn *c) {
    if (c->tls)
        SSL_free(c->tls);
    c->tls = 0;
    close(c->fd);
}

#else

int start_tls(conn *c) {
    (void)c;
    return die("amqpload was built without TLS: install the headers of OpenSSL and build it again");
}

ssize_t send_bytes(conn *c, const void *bytes, size_t n) {
    return send(c->fd, bytes, n, MSG_NOSIGNAL);
}

ssize_t receive_bytes(conn *c, void *bytes, size_t n) {
    return recv(c->fd, bytes, n, 0);
}

int has_pending(const conn *c) {
    (void)c;
    return 0;
}

void close_socket(conn *c) {
    close(c->fd);
}
#endif
