/* Loads one server on 127.0.0.1 with one kind of work and prints one JSON object. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "load/load.h"

static const char usage[] =
    "usage: load lines|connections|burst|idle|datagrams|relp PORT SERVER-PID CONNECTIONS SIZE"
    " WINDOW WARMUP-SECONDS SECONDS ok|upper|session plain|tls RATE\n"
    "       load syncs 0 0 CONNECTIONS SIZE WINDOW WARMUP-SECONDS SECONDS ok|upper plain 0";

int main(int argc, char **argv) {
    if (argc != 12)
        fail("%s", usage);
    struct settings s = {
        .port = atoi(argv[2]),
        .server = (pid_t)atoi(argv[3]),
        .connections = atoi(argv[4]),
        .size = strtoul(argv[5], NULL, 10),
        .window = strtoul(argv[6], NULL, 10),
        .warmup = atof(argv[7]),
        .seconds = atof(argv[8]),
        .upper = !strcmp(argv[9], "upper"),
        .session = !strcmp(argv[9], "session"),
        .tls = !strcmp(argv[10], "tls"),
        .rate = atof(argv[11]),
    };
    bool alone = !strcmp(argv[1], "syncs");
    if (s.connections < 1 || s.size < 2 || s.window < 1 || s.warmup < 0 || s.seconds <= 0 ||
        (!alone && (s.port < 1 || s.port > 65535 || s.server < 1)))
        fail("%s", usage);
    /* Nothing may go on loading after the one who asked for it is gone. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);

    struct measurement m = {0};
    if (!strcmp(argv[1], "lines"))
        load_lines(&s, &m);
    else if (!strcmp(argv[1], "connections"))
        load_connections(&s, &m);
    else if (!strcmp(argv[1], "burst"))
        load_burst(&s, &m);
    else if (!strcmp(argv[1], "idle"))
        load_idle(&s, &m);
    else if (!strcmp(argv[1], "datagrams"))
        load_datagrams(&s, &m);
    else if (!strcmp(argv[1], "relp"))
        load_relp(&s, &m);
    else if (alone)
        load_syncs(&s, &m);
    else
        fail("%s", usage);
    measurement_print(&m);
    return 0;
}
