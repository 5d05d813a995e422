/* Datagrams that must come back as they were sent: a window of them in flight, or so many a
 * second, whatever comes back. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

/* A datagram that has not come back by then counts as lost. */
#define LOST_AFTER_NS 250000000ull
#define BATCH 64
#define LARGEST 65536u
#define PATTERN 251

struct slot {
    uint64_t number; /* of the datagram that is or was last in flight here */
    uint64_t sent_at;
    bool in_flight;
};

static struct slot *slots;
static size_t window, size, in_flight;
static unsigned char pattern[LARGEST + PATTERN];
static unsigned char *output, *input;
static uint64_t total_lost;
/* With a rate, datagrams go through the slots in turn; these are the oldest and the next. */
static uint64_t oldest, next, skipped;

/* The number first, then bytes that depend on it. */
static void fill(unsigned char *to, uint64_t number) {
    unsigned char head[8];
    for (int i = 0; i < 8; i++)
        head[i] = (unsigned char)(number >> 8 * i);
    memcpy(to, pattern + number % PATTERN, size);
    memcpy(to, head, size < 8 ? size : 8);
}

static uint64_t number_in(const unsigned char *datagram) {
    uint64_t number = 0;
    for (int i = 0; i < 8; i++)
        number |= (uint64_t)datagram[i] << 8 * i;
    return number;
}

static void send_datagrams(int fd) {
    struct mmsghdr messages[BATCH];
    struct iovec parts[BATCH];
    struct slot *chosen[BATCH];
    for (size_t next = 0; next < window;) {
        unsigned count = 0;
        for (; next < window && count < BATCH; next++) {
            if (slots[next].in_flight)
                continue;
            fill(output + count * size, slots[next].number + window);
            parts[count] = (struct iovec){output + count * size, size};
            messages[count] = (struct mmsghdr){.msg_hdr = {.msg_iov = &parts[count],
                                                           .msg_iovlen = 1}};
            chosen[count++] = &slots[next];
        }
        if (!count)
            return;
        uint64_t now = now_ns();
        int sent = sendmmsg(fd, messages, count, MSG_DONTWAIT);
        if (sent < 0 && errno != EAGAIN && errno != EINTR && errno != ENOBUFS)
            fail("send: %s", strerror(errno));
        for (int i = 0; i < sent; i++) {
            *chosen[i] = (struct slot){chosen[i]->number + window, now, true};
            in_flight++;
        }
        if (sent < (int)count)
            return;
    }
}

/* Sends what is due by now; what is more than a batch behind is left out. */
static void send_due(int fd, double rate, uint64_t began, uint64_t now) {
    uint64_t due = (uint64_t)((double)(now - began) / 1e9 * rate) - skipped;
    if (due <= next)
        return;
    if (due - next > BATCH) {
        skipped += due - next - BATCH;
        due = next + BATCH;
    }
    struct mmsghdr messages[BATCH];
    struct iovec parts[BATCH];
    unsigned count = 0;
    for (; next + count < due && next + count < oldest + window; count++) {
        fill(output + count * size, next + count);
        parts[count] = (struct iovec){output + count * size, size};
        messages[count] =
            (struct mmsghdr){.msg_hdr = {.msg_iov = &parts[count], .msg_iovlen = 1}};
    }
    int sent = count ? sendmmsg(fd, messages, count, MSG_DONTWAIT) : 0;
    if (sent < 0 && errno != EAGAIN && errno != EINTR && errno != ENOBUFS)
        fail("send: %s", strerror(errno));
    for (int i = 0; i < sent; i++, next++) {
        slots[next % window] = (struct slot){next, now, true};
        in_flight++;
    }
}

static void take_datagram(const unsigned char *datagram, size_t length, uint64_t now,
                          struct measurement *m) {
    unsigned char expected[LARGEST];
    if (length != size)
        fail("a datagram of %zu bytes came back as %zu", size, length);
    uint64_t number = number_in(datagram);
    fill(expected, number);
    if (memcmp(datagram, expected, size))
        fail("a datagram came back with other bytes");
    struct slot *slot = &slots[number % window];
    if (!slot->in_flight || slot->number != number) {
        if (number > slot->number || !total_lost)
            fail("datagram %llu came back twice, or was never sent", (unsigned long long)number);
        return; /* it was given up and counted as lost before */
    }
    slot->in_flight = false;
    in_flight--;
    measurement_answers(m, 1);
    measurement_latency(m, now - slot->sent_at);
}

static unsigned receive_datagrams(int fd, struct measurement *m) {
    struct mmsghdr messages[BATCH];
    struct iovec parts[BATCH];
    for (unsigned i = 0; i < BATCH; i++) {
        /* One byte more than was sent: a reply that grew must show. */
        parts[i] = (struct iovec){input + i * (size + 1), size + 1};
        messages[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &parts[i], .msg_iovlen = 1}};
    }
    int count = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
    if (count < 0 && errno != EAGAIN && errno != EINTR)
        fail("receive: %s", strerror(errno));
    uint64_t now = now_ns();
    for (int i = 0; i < count; i++)
        take_datagram(input + (size_t)i * (size + 1), messages[i].msg_len, now, m);
    return count > 0 ? (unsigned)count : 0;
}

/* True when the datagram there is not awaited any more. */
static bool is_settled(struct slot *slot, uint64_t now, struct measurement *m) {
    if (!slot->in_flight)
        return true;
    if (now - slot->sent_at < LOST_AFTER_NS)
        return false;
    slot->in_flight = false;
    in_flight--;
    total_lost++;
    m->lost += m->phase == MEASURING;
    return true;
}

static void give_up_lost(uint64_t now, struct measurement *m, bool in_turn) {
    if (in_turn)
        while (oldest < next && is_settled(&slots[oldest % window], now, m))
            oldest++;
    else
        for (size_t i = 0; i < window; i++)
            is_settled(&slots[i], now, m);
}

static void prepare(const struct settings *s) {
    /* As many as can be awaited at once. */
    window = s->rate ? (size_t)(s->rate * LOST_AFTER_NS / 1e9) + BATCH : s->window;
    size = s->size;
    if (size < 8 || size >= LARGEST)
        fail("a datagram has 8 to %u bytes here", LARGEST - 1);
    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = (unsigned char)(i % PATTERN);
    slots = calloc(window, sizeof *slots);
    output = malloc(BATCH * size);
    input = malloc(BATCH * (size + 1));
    if (!slots || !output || !input)
        fail("out of memory");
    for (size_t i = 0; i < window; i++)
        slots[i].number = i;
}

void load_datagrams(const struct settings *s, struct measurement *m) {
    prepare(s);
    int fd = connect_datagrams(s->port);
    measurement_start(m, s);
    uint64_t began = now_ns();
    while (m->phase != DRAINING || in_flight) {
        if (m->phase != DRAINING && s->rate)
            send_due(fd, s->rate, began, now_ns());
        else if (m->phase != DRAINING)
            send_datagrams(fd);
        /* With a rate the next is due before a poll would be over. */
        if (!receive_datagrams(fd, m) && !s->rate) {
            struct pollfd ready = {.fd = fd, .events = POLLIN};
            poll(&ready, 1, 20);
        }
        uint64_t now = now_ns();
        give_up_lost(now, m, s->rate > 0);
        measurement_tick(m, now);
    }
    if (!m->answered)
        fail("not one datagram came back");
    close(fd);
}
