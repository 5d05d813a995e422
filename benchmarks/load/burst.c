/* Connections that all come at once: each sends a line as soon as it is through. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

#define EVENTS 1024
/* A connection attempt that the backlog had no room for is repeated after 1, 3, 7, 15 s. */
#define BURST_PATIENCE_NS (30ull * 1000000000ull)

struct caller {
    int fd, number;
    bool asked;
    size_t received;
};

static struct script script;
static struct caller *callers;

static void ask(struct caller *c, int epoll) {
    if (send(c->fd, script.sent, script.line, MSG_NOSIGNAL) != (ssize_t)script.line)
        fail("connection %d: %s", c->number, strerror(errno));
    c->asked = true;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
}

/* True when the reply is there, whole and right. */
static bool take_reply(struct caller *c) {
    char input[READ_SIZE / 16];
    ssize_t count = recv(c->fd, input, sizeof input, 0);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (count <= 0)
        fail("connection %d ended before its reply", c->number);
    script_check(&script, c->received, input, (size_t)count, c->number);
    c->received += (size_t)count;
    return c->received == script.reply;
}

static void burst(int count, int epoll, const struct settings *s, struct measurement *m) {
    uint64_t began = now_ns();
    for (int i = 0; i < count; i++) {
        callers[i] = (struct caller){.fd = begin_stream(s->port), .number = i};
        struct epoll_event event = {.events = EPOLLOUT, .data.ptr = &callers[i]};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, callers[i].fd, &event))
            fail("epoll_ctl: %s", strerror(errno));
    }
    for (int left = count; left;) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(epoll, events, EVENTS, 100);
        for (int i = 0; i < ready; i++) {
            struct caller *c = events[i].data.ptr;
            if (!c->asked) {
                ask(c, epoll);
            } else if (take_reply(c)) {
                left--;
                epoll_ctl(epoll, EPOLL_CTL_DEL, c->fd, NULL);
                measurement_latency(m, now_ns() - began);
                measurement_answers(m, 1);
            }
        }
        if (now_ns() - began > BURST_PATIENCE_NS)
            fail("%d of %d connections got no reply", left, count);
    }
    m->value = (double)(now_ns() - began) / 1e6;
}

void load_burst(const struct settings *s, struct measurement *m) {
    script = script_new(s);
    callers = calloc((size_t)s->connections, sizeof *callers);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!callers || epoll < 0)
        fail("no memory or no epoll");
    struct settings now = *s;
    now.warmup = now.seconds = 0;
    measurement_start(m, &now);
    /* What the first connection makes the server load is not what a burst takes. */
    burst(1, epoll, s, m);
    close(callers[0].fd);
    measurement_tick(m, now_ns());
    burst(s->connections, epoll, s, m);
    measurement_tick(m, now_ns());
    for (int i = 0; i < s->connections; i++)
        close(callers[i].fd);
    free(callers);
    close(epoll);
}
