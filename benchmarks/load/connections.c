/* Connections that come and go: connect, one line, its reply, close. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

#define EVENTS 256

struct visit {
    int fd, number;
    size_t received;
    uint64_t began;
};

static struct script script;

static void begin(struct visit *v, int epoll, int port) {
    v->began = now_ns();
    v->received = 0;
    v->fd = connect_stream(port);
    ssize_t sent = send(v->fd, script.sent, script.line, MSG_NOSIGNAL);
    if (sent != (ssize_t)script.line)
        fail("the line on a new connection was not taken whole");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = v};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, v->fd, &event))
        fail("epoll_ctl: %s", strerror(errno));
}

/* True when the reply is there, whole and right. */
static bool take_reply(struct visit *v) {
    char input[READ_SIZE / 16];
    ssize_t count = recv(v->fd, input, sizeof input, MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (count < 0)
        fail("receive: %s", strerror(errno));
    if (count == 0)
        fail("the server closed a new connection before its reply");
    script_check(&script, v->received, input, (size_t)count, v->number);
    v->received += (size_t)count;
    if (v->received > script.reply)
        fail("more than one reply to the only line of a connection");
    return v->received == script.reply;
}

void load_connections(const struct settings *s, struct measurement *m) {
    script = script_new(s);
    struct visit *visits = calloc((size_t)s->connections, sizeof *visits);
    int epoll = epoll_create1(EPOLL_CLOEXEC), open = s->connections;
    if (!visits || epoll < 0)
        fail("no memory or no epoll");
    measurement_start(m, s);
    for (int i = 0; i < s->connections; i++) {
        visits[i].number = i;
        begin(&visits[i], epoll, s->port);
    }
    while (open) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(epoll, events, EVENTS, 100);
        if (ready < 0 && errno != EINTR)
            fail("epoll_wait: %s", strerror(errno));
        for (int i = 0; i < ready; i++) {
            struct visit *v = events[i].data.ptr;
            if (!take_reply(v))
                continue;
            measurement_latency(m, now_ns() - v->began);
            measurement_answers(m, 1);
            close(v->fd);
            if (m->phase == DRAINING)
                open--;
            else
                begin(v, epoll, s->port);
        }
        measurement_tick(m, now_ns());
        if (m->phase == DRAINING && now_ns() > m->ends)
            fail("%d new connections got no reply", open);
    }
    free(visits);
    close(epoll);
}
