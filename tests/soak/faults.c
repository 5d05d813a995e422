/* Has the writes and syncs of a write-ahead log go wrong as the file FAULTS says, for as long as
 * it is there: "slow MILLISECONDS" or "fail NUMBER" of syncs (-1: all), "die NUMBER" of calls. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int calls, failed;

static int isLog(int descriptor) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path);
    return length > 4 && memcmp(path + length - 4, "-wal", 4) == 0;
}

static int asked(const char *wanted, int *number) {
    char verb[16] = "";
    const char *path = getenv("FAULTS");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (file == NULL)
        return 0;
    int found = fscanf(file, "%15s %d", verb, number);
    fclose(file);
    return found == 2 && strcmp(verb, wanted) == 0;
}

static void step(int descriptor) {
    int number;
    if (isLog(descriptor) && (asked("die", &number) || (failed && asked("fatal", &number))) &&
        ++calls == number)
        kill(getpid(), SIGKILL);
}

int fdatasync(int descriptor) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    int number;
    step(descriptor);
    if (isLog(descriptor)) {
        if ((asked("fail", &number) && (number < 0 || failed < number)) ||
            (!failed && asked("fatal", &number))) {
            failed++;
            errno = EIO;
            return -1;
        }
        if (asked("slow", &number))
            usleep(number * 1000);
    }
    return real(descriptor);
}

ssize_t pwrite(int descriptor, const void *data, size_t size, off_t at) {
    ssize_t (*real)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, "pwrite");
    step(descriptor);
    return real(descriptor, data, size, at);
}

ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t at) {
    ssize_t (*real)(int, const void *, size_t, off64_t) = dlsym(RTLD_NEXT, "pwrite64");
    step(descriptor);
    return real(descriptor, data, size, at);
}
