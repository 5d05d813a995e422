/* The parts of the load generator that its kinds of work share. */
#ifndef LOAD_H
#define LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* How long anything but the measurement itself may take: opening, draining. */
#define PATIENCE_NS (10ull * 1000000000ull)
/* The most bytes taken in one read. */
#define READ_SIZE (256u * 1024u)

struct settings {
    int port;
    pid_t server;
    int connections;
    size_t size;   /* of a line with its newline, or of a datagram */
    size_t window; /* lines or datagrams in flight on each connection */
    double warmup;
    double seconds;
    bool upper; /* the reply is the line in capitals, otherwise `ok` */
    bool session; /* `ok` too, behind a hello of its own on each connection */
    bool tls;
    double rate; /* datagrams a second, whatever comes back; 0 waits for the window */
};

/* A connection to the server, over TLS where `tls` is set. */
struct stream {
    int fd;
    struct ssl_st *tls;
};

enum phase { WARMING, MEASURING, DRAINING };

struct measurement {
    enum phase phase;
    uint64_t began, ends; /* of the present phase */
    uint64_t seconds_ns;
    uint64_t answered; /* while MEASURING */
    uint64_t answered_in_all;
    uint64_t lost;
    uint64_t elapsed_ns, server_cpu_ns, loader_cpu_ns;
    uint64_t server_wait_ns, loader_wait_ns;
    uint64_t server_main_ns; /* of server_cpu_ns, its main thread's */
    bool has_latency;
    double value; /* what is measured where that is no rate: bytes or milliseconds */
};

/* What is sent, and what must come back, both repeated without end. */
struct script {
    size_t line, reply; /* the size of one */
    size_t sent_period, reply_period;
    char *sent;  /* sent_period bytes */
    char *reply_stream; /* reply_period + READ_SIZE bytes: a read compares in one go */
};

_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
uint64_t now_ns(void);

void measurement_start(struct measurement *m, const struct settings *s);
void measurement_answers(struct measurement *m, uint64_t count);
/* Moves on from one phase to the next when its time has come. */
void measurement_tick(struct measurement *m, uint64_t now);
void measurement_latency(struct measurement *m, uint64_t ns);
void measurement_print(const struct measurement *m);

struct script script_new(const struct settings *s);
/* Fails unless the `count` bytes at `got` are what follows `before` bytes of replies. */
void script_check(const struct script *script, uint64_t before, const char *got, size_t count,
                  int connection);

int connect_stream(int port);
int connect_datagrams(int port);
/* Connects without waiting until that is done. */
int begin_stream(int port);

struct stream stream_open(const struct settings *s);
/* As send() and recv() without waiting; EAGAIN also where TLS wants more. After a send that
   was not taken the next must begin with the same bytes. */
ssize_t stream_send(const struct stream *stream, const char *from, size_t count);
ssize_t stream_receive(const struct stream *stream, char *to, size_t count);
void stream_close(struct stream *stream);

void load_lines(const struct settings *s, struct measurement *m);
void load_connections(const struct settings *s, struct measurement *m);
void load_datagrams(const struct settings *s, struct measurement *m);
void load_burst(const struct settings *s, struct measurement *m);
void load_idle(const struct settings *s, struct measurement *m);
void load_relp(const struct settings *s, struct measurement *m);
/* Loads no server but the disk of the current folder. */
void load_syncs(const struct settings *s, struct measurement *m);

#endif
