/* Lines as RELP messages, a window of them in flight on each connection.
 *
 * A frame is `NUMBER COMMAND LENGTH[ DATA]\n`; its response has the number and the command
 * `rsp`, and data that begins with `200` when the message was taken. Here responses are
 * expected in the order of the messages, which is how rsyslog gives them. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

#define OFFER "relp_version=0\nrelp_software=benchmarks\ncommands=syslog"
/* Numbers wrap around here, says the protocol. */
#define LAST_NUMBER 999999999u
#define RESPONSE_SIZE 4096

struct session {
    int fd, number;
    uint32_t sent, received; /* the numbers of the latest */
    uint64_t asked;
    size_t kept; /* bytes of a response that is not whole */
    char input[RESPONSE_SIZE];
};

static struct script script;
static size_t window;
static char *frames; /* room for a window of them */

static void send_all(const struct session *c, const char *data, size_t left) {
    while (left) {
        /* It may block: a window is small against the system's buffers. */
        ssize_t sent = send(c->fd, data, left, MSG_NOSIGNAL);
        if (sent < 0 && errno != EINTR)
            fail("send on connection %d: %s", c->number, strerror(errno));
        data += sent > 0 ? sent : 0;
        left -= sent > 0 ? (size_t)sent : 0;
    }
}

static void send_messages(struct session *c) {
    size_t free = window - (c->sent - c->received), length = 0;
    if (free * 2 < window)
        return;
    for (; free; free--) {
        size_t at = (size_t)c->sent * script.line % script.sent_period;
        if (++c->sent > LAST_NUMBER)
            fail("more messages than RELP has numbers");
        length += (size_t)sprintf(frames + length, "%u syslog %zu ", c->sent, script.line);
        memcpy(frames + length, script.sent + at, script.line);
        length += script.line;
        frames[length - 1] = '.'; /* for the line's own newline */
        frames[length++] = '\n';
    }
    c->asked = now_ns();
    send_all(c, frames, length);
}

/* The length of the response at `at`, or 0 when it is not whole. */
static size_t take_response(const struct session *c, const char *at, size_t length) {
    unsigned number;
    size_t size;
    int head = 0;
    char *newline = memchr(at, '\n', length);
    if (!newline)
        return 0;
    if (sscanf(at, "%u rsp %zu%n", &number, &size, &head) != 2 || size < 3)
        fail("connection %d got no response of RELP: %.*s", c->number, (int)(newline - at), at);
    size_t whole = (size_t)head + 1 + size + 1;
    if (whole >= RESPONSE_SIZE)
        fail("connection %d got a response of %zu bytes", c->number, size);
    if (whole > length)
        return 0;
    if (number != c->received + 1 || number > c->sent)
        fail("connection %d got response %u, not %u", c->number, number, c->received + 1);
    if (memcmp(at + head + 1, "200", 3))
        fail("connection %d: message %u was refused", c->number, number);
    return whole;
}

static void receive_responses(struct session *c, struct measurement *m) {
    ssize_t count = recv(c->fd, c->input + c->kept, RESPONSE_SIZE - 1 - c->kept, MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (count <= 0)
        fail("the server closed connection %d", c->number);
    size_t length = c->kept + (size_t)count, at = 0, used;
    c->input[length] = 0;
    while ((used = take_response(c, c->input + at, length - at))) {
        at += used;
        c->received++;
        measurement_answers(m, 1);
        if (window == 1)
            measurement_latency(m, now_ns() - c->asked);
    }
    c->kept = length - at;
    memmove(c->input, c->input + at, c->kept);
}

static void wait_for_all(struct session *c, struct measurement *m) {
    struct pollfd ready = {.fd = c->fd, .events = POLLIN};
    uint64_t deadline = now_ns() + PATIENCE_NS;
    while (c->received != c->sent) {
        if (now_ns() > deadline)
            fail("%u responses on connection %d are missing", c->sent - c->received, c->number);
        poll(&ready, 1, 100);
        receive_responses(c, m);
    }
}

static void open_session(struct session *c, int number, int port) {
    struct measurement uncounted = {0};
    *c = (struct session){.fd = connect_stream(port), .number = number, .sent = 1};
    char frame[sizeof OFFER + 32];
    int length = snprintf(frame, sizeof frame, "1 open %zu %s\n", strlen(OFFER), OFFER);
    send_all(c, frame, (size_t)length);
    wait_for_all(c, &uncounted);
}

void load_relp(const struct settings *s, struct measurement *m) {
    script = script_new(s);
    window = s->window;
    size_t count = (size_t)s->connections;
    struct session *sessions = calloc(count, sizeof *sessions);
    struct pollfd *ready = calloc(count, sizeof *ready);
    frames = malloc(window * (script.line + 64));
    if (!sessions || !ready || !frames)
        fail("no memory");
    for (size_t i = 0; i < count; i++) {
        open_session(&sessions[i], (int)i, s->port);
        ready[i] = (struct pollfd){.fd = sessions[i].fd, .events = POLLIN};
    }
    measurement_start(m, s);
    for (size_t i = 0; i < count; i++)
        send_messages(&sessions[i]);
    while (m->phase != DRAINING) {
        if (poll(ready, count, 100) < 0 && errno != EINTR)
            fail("poll: %s", strerror(errno));
        for (size_t i = 0; i < count; i++) {
            if (!ready[i].revents)
                continue;
            receive_responses(&sessions[i], m);
            send_messages(&sessions[i]);
        }
        measurement_tick(m, now_ns());
    }
    for (size_t i = 0; i < count; i++) {
        wait_for_all(&sessions[i], m);
        close(sessions[i].fd);
    }
    free(sessions);
    free(ready);
    free(frames);
}
