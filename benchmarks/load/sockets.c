/* Sockets connected to a server on 127.0.0.1, and to nothing else. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#ifdef TLS
#include <fcntl.h>
#include <openssl/ssl.h>
#endif

#include "load.h"

static int connect_socket(int type, int port) {
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    if (fd < 0)
        fail("socket: %s", strerror(errno));
    struct timeval patience = {.tv_sec = (time_t)(PATIENCE_NS / 1000000000ull)};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)port),
        .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)},
    };
    if (connect(fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS)
        fail("connect: %s", strerror(errno));
    return fd;
}

static int without_delay(int fd) {
    /* With Nagle's algorithm on, a reply would wait for an acknowledgement of TCP. */
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

int connect_stream(int port) { return without_delay(connect_socket(SOCK_STREAM, port)); }

int begin_stream(int port) {
    return without_delay(connect_socket(SOCK_STREAM | SOCK_NONBLOCK, port));
}

int connect_datagrams(int port) {
    int fd = connect_socket(SOCK_DGRAM, port);
    /* What this side cannot hold would be counted as lost by the server. */
    int size = 4 * 1024 * 1024;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    return fd;
}

#ifdef TLS
static SSL *begin_tls(int fd) {
    static SSL_CTX *context;
    if (!context)
        context = SSL_CTX_new(TLS_client_method());
    SSL *tls = context ? SSL_new(context) : NULL;
    if (!tls || !SSL_set_fd(tls, fd))
        fail("no memory for TLS");
    SSL_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (SSL_connect(tls) != 1)
        fail("the TLS handshake failed");
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return tls;
}

static ssize_t done(const struct stream *stream, int count) {
    if (count > 0)
        return count;
    int error = SSL_get_error(stream->tls, count);
    if (error == SSL_ERROR_ZERO_RETURN)
        return 0;
    errno = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? EAGAIN : EPROTO;
    return -1;
}
#endif

struct stream stream_open(const struct settings *s) {
    struct stream stream = {.fd = connect_stream(s->port)};
#ifdef TLS
    if (s->tls)
        stream.tls = begin_tls(stream.fd);
#else
    if (s->tls)
        fail("made without TLS");
#endif
    return stream;
}

ssize_t stream_send(const struct stream *stream, const char *from, size_t count) {
#ifdef TLS
    if (stream->tls)
        return done(stream, SSL_write(stream->tls, from, (int)count));
#endif
    return send(stream->fd, from, count, MSG_NOSIGNAL | MSG_DONTWAIT);
}

ssize_t stream_receive(const struct stream *stream, char *to, size_t count) {
#ifdef TLS
    if (stream->tls)
        return done(stream, SSL_read(stream->tls, to, (int)count));
#endif
    return recv(stream->fd, to, count, MSG_DONTWAIT);
}

void stream_close(struct stream *stream) {
#ifdef TLS
    if (stream->tls)
        SSL_free(stream->tls);
#endif
    close(stream->fd);
}
