/* The contestant `c`: an epoll server that answers `ok` to every line, one write a read. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_SIZE 65536
#define EVENTS 1024

struct connection {
    int fd;
    size_t owed;    /* bytes of replies not written yet */
    size_t written; /* of the reply that is cut in two */
};

static char input[READ_SIZE];
/* As many replies as one read can call for, and one to begin in the middle of. */
static char replies[3 * (READ_SIZE + 1)];

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void watch(int epoll, int operation, struct connection *c, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(epoll, operation, c->fd, &event))
        die("epoll_ctl");
}

static void drop(struct connection *c) {
    close(c->fd);
    free(c);
}

static size_t count_lines(const char *at, size_t length) {
    const char *end = at + length;
    size_t lines = 0;
    while ((at = memchr(at, '\n', (size_t)(end - at)))) {
        at++;
        lines++;
    }
    return lines;
}

/* False when the connection is lost. */
static int write_owed(struct connection *c) {
    ssize_t count = send(c->fd, replies + c->written, c->owed, MSG_NOSIGNAL);
    if (count < 0)
        return errno == EAGAIN || errno == EINTR;
    c->owed -= (size_t)count;
    c->written = (c->written + (size_t)count) % 3;
    return 1;
}

static void serve(int epoll, struct connection *c, uint32_t events) {
    int was_owing = c->owed > 0;
    if (!was_owing) {
        ssize_t count = recv(c->fd, input, sizeof input, 0);
        if (count < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (count <= 0) {
            drop(c);
            return;
        }
        c->owed = 3 * count_lines(input, (size_t)count);
    }
    if ((c->owed && !write_owed(c)) || (was_owing && (events & EPOLLERR))) {
        drop(c);
        return;
    }
    /* Who does not take replies is not read from: what is owed stays bounded. */
    if ((c->owed > 0) != was_owing)
        watch(epoll, EPOLL_CTL_MOD, c, c->owed ? EPOLLOUT : EPOLLIN);
}

static void accept_one(int epoll, int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), on = 1;
    if (fd < 0)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct connection *c = calloc(1, sizeof *c);
    if (!c)
        die("calloc");
    c->fd = fd;
    watch(epoll, EPOLL_CTL_ADD, c, EPOLLIN);
}

static int listen_on_loopback(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof address;
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) || listen(fd, SOMAXCONN) ||
        getsockname(fd, (struct sockaddr *)&address, &length))
        die("listen");
    printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

int main(void) {
    static struct epoll_event events[EVENTS];
    for (size_t i = 0; i < sizeof replies; i++)
        replies[i] = "ok\n"[i % 3];
    struct connection listener = {.fd = listen_on_loopback()};
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        die("epoll_create1");
    watch(epoll, EPOLL_CTL_ADD, &listener, EPOLLIN);
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.ptr == &listener)
                accept_one(epoll, listener.fd);
            else
                serve(epoll, events[i].data.ptr, events[i].events);
        }
    }
}
