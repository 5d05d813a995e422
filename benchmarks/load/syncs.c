/* What the disk can do at most for one who waits: append a record, sync, again.
 *
 * It stands in a server's place: both of its processor times are its own. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "load.h"

void load_syncs(const struct settings *s, struct measurement *m) {
    struct script script = script_new(s);
    struct settings own = *s;
    own.server = getpid();
    int fd = open("records", O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0)
        fail("records: %s", strerror(errno));
    measurement_start(m, &own);
    while (m->phase != DRAINING) {
        uint64_t began = now_ns();
        if (write(fd, script.sent, s->size) != (ssize_t)s->size || fdatasync(fd))
            fail("records: %s", strerror(errno));
        uint64_t ended = now_ns();
        measurement_latency(m, ended - began);
        measurement_answers(m, 1);
        measurement_tick(m, ended);
    }
    close(fd);
}
