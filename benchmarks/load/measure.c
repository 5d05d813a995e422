/* Time, processor time and latencies of one measurement. */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "load.h"

/* Each power of two is cut into 128 buckets, so a percentile is within 1 % of the truth. */
#define FINE_BITS 7
#define FINE (1u << FINE_BITS)
static uint64_t histogram[(64 - FINE_BITS + 1) * FINE];

/* Of the server, and of the processes that it has started and that serve with it. */
static clockid_t server_clocks[64];
static size_t servers;
static char server_schedstat[64];
static const char loader_schedstat[] = "/proc/self/schedstat";

_Noreturn void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static uint64_t read_clock(clockid_t clock) {
    struct timespec t;
    if (clock_gettime(clock, &t))
        fail("the server process is gone");
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static uint64_t read_servers(void) {
    uint64_t sum = 0;
    for (size_t i = 0; i < servers; i++)
        sum += read_clock(server_clocks[i]);
    return sum;
}

static void find_servers(pid_t server) {
    char children[64];
    snprintf(children, sizeof children, "/proc/%d/task/%d/children", (int)server, (int)server);
    if (clock_getcpuclockid(server, &server_clocks[servers++]))
        fail("no process %d", (int)server);
    FILE *file = fopen(children, "r");
    int child;
    while (file && servers < sizeof server_clocks / sizeof *server_clocks &&
           fscanf(file, "%d", &child) == 1)
        servers += !clock_getcpuclockid(child, &server_clocks[servers]);
    if (file)
        fclose(file);
}

uint64_t now_ns(void) { return read_clock(CLOCK_MONOTONIC); }

/* How long a process's main thread has run, and has stood ready without getting its core. */
static void read_main(const char *schedstat, uint64_t *ran, uint64_t *wait) {
    *ran = *wait = 0;
    FILE *file = fopen(schedstat, "r");
    if (!file)
        return;
    if (fscanf(file, "%" SCNu64 " %" SCNu64, ran, wait) != 2)
        *ran = *wait = 0;
    fclose(file);
}

static uint64_t less(uint64_t from, uint64_t what) { return from > what ? from - what : 0; }

void measurement_start(struct measurement *m, const struct settings *s) {
    find_servers(s->server);
    snprintf(server_schedstat, sizeof server_schedstat, "/proc/%d/schedstat", (int)s->server);
    m->phase = WARMING;
    m->began = now_ns();
    m->ends = m->began + (uint64_t)(s->warmup * 1e9);
    m->seconds_ns = (uint64_t)(s->seconds * 1e9);
}

void measurement_tick(struct measurement *m, uint64_t now) {
    if (now < m->ends)
        return;
    uint64_t ran, wait, unused;
    if (m->phase == WARMING) {
        m->phase = MEASURING;
        m->ends = now + m->seconds_ns;
        read_main(server_schedstat, &m->server_main_ns, &m->server_wait_ns);
        read_main(loader_schedstat, &unused, &m->loader_wait_ns);
        m->server_cpu_ns = read_servers();
        m->loader_cpu_ns = read_clock(CLOCK_PROCESS_CPUTIME_ID);
        m->began = now_ns();
    } else if (m->phase == MEASURING) {
        m->phase = DRAINING;
        m->elapsed_ns = now_ns() - m->began;
        m->server_cpu_ns = read_servers() - m->server_cpu_ns;
        m->loader_cpu_ns = read_clock(CLOCK_PROCESS_CPUTIME_ID) - m->loader_cpu_ns;
        read_main(server_schedstat, &ran, &wait);
        /* While another thread of its own ran, it was not disturbed. */
        uint64_t own = less(m->server_cpu_ns, less(ran, m->server_main_ns));
        m->server_wait_ns = less(less(wait, m->server_wait_ns), own);
        read_main(loader_schedstat, &unused, &wait);
        m->loader_wait_ns = less(wait, m->loader_wait_ns);
        m->began = now_ns();
        m->ends = m->began + PATIENCE_NS;
    }
}

void measurement_answers(struct measurement *m, uint64_t count) {
    m->answered_in_all += count;
    if (m->phase == MEASURING)
        m->answered += count;
}

static unsigned bucket_of(uint64_t ns) {
    if (ns < FINE)
        return (unsigned)ns;
    unsigned shift = 63u - (unsigned)__builtin_clzll(ns) - FINE_BITS;
    return (shift + 1) * FINE + (unsigned)((ns >> shift) - FINE);
}

static double bucket_middle(unsigned bucket) {
    if (bucket < FINE)
        return bucket;
    unsigned shift = bucket / FINE - 1;
    return ((double)(bucket % FINE + FINE) + 0.5) * (double)(1ull << shift);
}

void measurement_latency(struct measurement *m, uint64_t ns) {
    if (m->phase == MEASURING) {
        m->has_latency = true;
        histogram[bucket_of(ns)]++;
    }
}

static void print_percentile(const char *name, double share) {
    uint64_t total = 0, seen = 0;
    unsigned buckets = sizeof histogram / sizeof *histogram, i = 0;
    for (unsigned b = 0; b < buckets; b++)
        total += histogram[b];
    double rank = share * (double)total;
    for (; i < buckets - 1; i++) {
        seen += histogram[i];
        if ((double)seen >= rank)
            break;
    }
    printf(", \"%s\": %.3f", name, bucket_middle(i) / 1e3);
}

void measurement_print(const struct measurement *m) {
    printf("{\"answered\": %" PRIu64 ", \"answered_in_all\": %" PRIu64, m->answered,
           m->answered_in_all);
    printf(", \"lost\": %" PRIu64 ", \"seconds\": %.9f", m->lost, (double)m->elapsed_ns / 1e9);
    printf(", \"server_cpu\": %.9f, \"loader_cpu\": %.9f", (double)m->server_cpu_ns / 1e9,
           (double)m->loader_cpu_ns / 1e9);
    printf(", \"server_wait\": %.9f, \"loader_wait\": %.9f", (double)m->server_wait_ns / 1e9,
           (double)m->loader_wait_ns / 1e9);
    if (m->has_latency) {
        print_percentile("p50", 0.5);
        print_percentile("p99", 0.99);
        print_percentile("p999", 0.999);
    }
    if (m->value > 0)
        printf(", \"value\": %.6f", m->value);
    puts("}");
}
