/* Lines on connections that stay open: a window of them in flight on each.
 *
 * A window of one is ping-pong, and then each round trip is timed. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

#define EVENTS 1024

struct connection {
    struct stream stream;
    int number;
    bool blocked;   /* the socket took less than it was given */
    size_t pledged; /* what TLS was given and did not take: it must get the same again */
    uint64_t sent, received;
    uint64_t asked; /* when the last line was sent */
};

static struct script script;
static size_t window_bytes;
static char input[READ_SIZE];

static uint64_t replies_due(const struct connection *c) {
    return c->sent / script.line * script.reply;
}

static bool is_settled(const struct connection *c) {
    return c->sent % script.line == 0 && c->received == replies_due(c);
}

/* How many more bytes the window lets this connection send. */
static size_t sendable(const struct connection *c, bool draining) {
    if (draining)
        return c->pledged + (script.line - (c->sent + c->pledged) % script.line) % script.line;
    size_t in_flight = c->sent - c->received / script.reply * script.line;
    size_t free = in_flight < window_bytes ? window_bytes - in_flight : 0;
    /* Small top-ups would make the server read in small pieces. */
    return c->blocked || free * 2 >= window_bytes ? free : 0;
}

static void send_lines(struct connection *c, bool draining) {
    size_t left = sendable(c, draining);
    if (left)
        c->asked = now_ns();
    c->blocked = false;
    while (left) {
        size_t at = c->sent % script.sent_period;
        size_t count = left < script.sent_period - at ? left : script.sent_period - at;
        ssize_t sent = stream_send(&c->stream, script.sent + at, count);
        if (sent < 0 && (errno == EAGAIN || errno == EINTR)) {
            c->blocked = true;
            c->pledged = c->stream.tls ? count : 0;
            return;
        }
        if (sent < 0)
            fail("send on connection %d: %s", c->number, strerror(errno));
        c->sent += (uint64_t)sent;
        c->pledged = 0;
        left -= (size_t)sent;
    }
}

static void receive_replies(struct connection *c, struct measurement *m) {
    ssize_t count;
    do {
        count = stream_receive(&c->stream, input, sizeof input);
        if (count < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (count < 0)
            fail("receive on connection %d: %s", c->number, strerror(errno));
        if (count == 0)
            fail("the server closed connection %d with %llu bytes of replies missing", c->number,
                 (unsigned long long)(replies_due(c) - c->received));
        script_check(&script, c->received, input, (size_t)count, c->number);
        uint64_t before = c->received / script.reply;
        c->received += (uint64_t)count;
        if (c->received > replies_due(c))
            fail("connection %d got a reply to a line it has not sent", c->number);
        uint64_t replies = c->received / script.reply - before;
        measurement_answers(m, replies);
        if (window_bytes == script.line && replies)
            measurement_latency(m, now_ns() - c->asked);
        /* A full read may have left bytes behind, and they raise no further event. */
    } while (count == (ssize_t)sizeof input || c->stream.tls);
}

/* Sends the hello of a new session, and takes its reply off. */
static void open_session(const struct connection *c) {
    char hello[64], reply = 0;
    int length = snprintf(hello, sizeof hello, "session/1 load-%d at=0\n", c->number);
    if (stream_send(&c->stream, hello, (size_t)length) != length)
        fail("the hello on connection %d was not taken whole", c->number);
    struct pollfd ready = {.fd = c->stream.fd, .events = POLLIN};
    uint64_t deadline = now_ns() + PATIENCE_NS;
    for (bool first = true; reply != '\n';) {
        ssize_t count = stream_receive(&c->stream, &reply, 1);
        if (count < 0 && (errno == EAGAIN || errno == EINTR) && now_ns() < deadline)
            poll(&ready, 1, 100);
        else if (count != 1 || (first && reply != 's'))
            fail("no session was opened on connection %d", c->number);
        else
            first = false;
    }
}

/* Opens a connection and has one line answered, so that no backlog overflows. */
static void open_connection(struct connection *c, int number, const struct settings *s,
                            struct measurement *m) {
    *c = (struct connection){.stream = stream_open(s), .number = number};
    if (s->session)
        open_session(c);
    struct pollfd ready = {.fd = c->stream.fd, .events = POLLIN};
    uint64_t deadline = now_ns() + PATIENCE_NS;
    while (c->sent < script.line) {
        ssize_t sent = stream_send(&c->stream, script.sent + c->sent, script.line - c->sent);
        if (sent > 0)
            c->sent += (uint64_t)sent;
        else if ((errno != EAGAIN && errno != EINTR) || now_ns() > deadline)
            fail("the first line on connection %d was not taken", number);
    }
    while (!is_settled(c)) {
        if (now_ns() > deadline)
            fail("no reply to the first line on connection %d", number);
        poll(&ready, 1, 100);
        receive_replies(c, m);
    }
}

/* What of the server's processes is in memory, in bytes. */
static double resident(pid_t server) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/statm", (int)server);
    FILE *file = fopen(path, "r");
    long pages;
    if (!file || fscanf(file, "%*s %ld", &pages) != 1)
        fail("the server process is gone");
    fclose(file);
    double bytes = (double)pages * (double)sysconf(_SC_PAGESIZE);
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)server, (int)server);
    int child;
    for (file = fopen(path, "r"); file && fscanf(file, "%d", &child) == 1;)
        bytes += resident(child);
    if (file)
        fclose(file);
    return bytes;
}

/* Connections that have had one line answered and then are idle: what each takes in memory.
 *
 * The first of them do not count: they find room that the server's start has left over. */
void load_idle(const struct settings *s, struct measurement *m) {
    script = script_new(s);
    int first = s->connections / 10;
    struct connection *connections = calloc((size_t)s->connections, sizeof *connections);
    if (!connections || first < 1)
        fail("out of memory, or too few connections");
    struct settings now = *s;
    now.warmup = now.seconds = 0;
    measurement_start(m, &now);
    double before = 0;
    for (int i = 0; i < s->connections; i++) {
        if (i == first) {
            before = resident(s->server);
            measurement_tick(m, now_ns());
        }
        open_connection(&connections[i], i, s, m);
    }
    m->value = (resident(s->server) - before) / (s->connections - first);
    measurement_tick(m, now_ns());
    for (int i = 0; i < s->connections; i++)
        stream_close(&connections[i].stream);
    free(connections);
}

static bool all_settled(const struct connection *connections, int count) {
    for (int i = 0; i < count; i++)
        if (!is_settled(&connections[i]))
            return false;
    return true;
}

static void fail_unsettled(const struct connection *connections, int count) {
    unsigned long long missing = 0;
    int unsettled = 0;
    for (int i = 0; i < count; i++) {
        missing += replies_due(&connections[i]) - connections[i].received;
        unsettled += !is_settled(&connections[i]);
    }
    fail("%llu bytes of replies on %d connections are still missing at the end", missing,
         unsettled);
}

static void run(int epoll, struct connection *connections, int count, struct measurement *m) {
    static struct epoll_event events[EVENTS];
    for (int i = 0; i < count; i++)
        send_lines(&connections[i], false);
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS, 100);
        if (ready < 0 && errno != EINTR)
            fail("epoll_wait: %s", strerror(errno));
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            receive_replies(c, m);
            send_lines(c, m->phase == DRAINING);
        }
        uint64_t now = now_ns();
        measurement_tick(m, now);
        if (m->phase != DRAINING)
            continue;
        if (all_settled(connections, count))
            return;
        if (now > m->ends)
            fail_unsettled(connections, count);
    }
}

void load_lines(const struct settings *s, struct measurement *m) {
    script = script_new(s);
    window_bytes = s->window * s->size;
    struct connection *connections = calloc((size_t)s->connections, sizeof *connections);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!connections || epoll < 0)
        fail("no memory or no epoll");
    for (int i = 0; i < s->connections; i++) {
        open_connection(&connections[i], i, s, m);
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET,
                                    .data.ptr = &connections[i]};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, connections[i].stream.fd, &event))
            fail("epoll_ctl: %s", strerror(errno));
    }
    measurement_start(m, s);
    run(epoll, connections, s->connections, m);
    /* A reply too many would still be on its way. */
    usleep(20000);
    for (int i = 0; i < s->connections; i++) {
        receive_replies(&connections[i], m);
        stream_close(&connections[i].stream);
    }
    free(connections);
    close(epoll);
}
