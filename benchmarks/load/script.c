/* The bytes a stream sends, and the bytes that must come back. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "load.h"

/* About as much as is sent at once, so that it stays in the processor's cache. */
#define PERIOD (256u * 1024u)

static void *allocate(size_t size) {
    void *memory = malloc(size);
    if (!memory)
        fail("out of memory");
    return memory;
}

/* Lines that differ from one another: a reply to the wrong line is a wrong reply. */
static void write_lines(char *to, size_t size, size_t count) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789 .,:-_";
    uint64_t state = 1;
    for (size_t i = 0; i < count; i++, to += size) {
        for (size_t at = 0; at < size - 1; at++) {
            state = state * 6364136223846793005ull + 1442695040888963407ull;
            to[at] = letters[(state >> 33) % (sizeof letters - 1)];
        }
        to[size - 1] = '\n';
    }
}

struct script script_new(const struct settings *s) {
    size_t lines = PERIOD / s->size + 1;
    struct script script = {.line = s->size, .sent_period = lines * s->size};
    script.sent = allocate(script.sent_period);
    write_lines(script.sent, s->size, lines);
    script.reply = s->upper ? s->size : 3;
    script.reply_period = s->upper ? script.sent_period : 3;
    size_t length = script.reply_period + READ_SIZE;
    script.reply_stream = allocate(length);
    for (size_t i = 0; i < length; i++)
        script.reply_stream[i] =
            s->upper ? (char)toupper(script.sent[i % script.sent_period]) : "ok\n"[i % 3];
    return script;
}

void script_check(const struct script *script, uint64_t before, const char *got, size_t count,
                  int connection) {
    const char *expected = script->reply_stream + before % script->reply_period;
    if (!memcmp(got, expected, count))
        return;
    size_t at = 0;
    while (got[at] == expected[at])
        at++;
    fail("wrong reply on connection %d: byte %llu of the replies is 0x%02x, not 0x%02x",
         connection, (unsigned long long)(before + at), (unsigned char)got[at],
         (unsigned char)expected[at]);
}
