/* Sockets connected to a server on 127.0.0.1, and to nothing else. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

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
    if (connect(fd, (struct sockaddr *)&address, sizeof address))
        fail("connect: %s", strerror(errno));
    return fd;
}

int connect_stream(int port) {
    int fd = connect_socket(SOCK_STREAM, port);
    /* With Nagle's algorithm on, a reply would wait for an acknowledgement of TCP. */
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

int connect_datagrams(int port) {
    int fd = connect_socket(SOCK_DGRAM, port);
    /* What this side cannot hold would be counted as lost by the server. */
    int size = 4 * 1024 * 1024;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    return fd;
}
