/* A disk and a clock with faults to order, between the server and its C library (LD_PRELOAD).
 *
 * What is to fail is read from a file of eight 64-bit numbers, FAULTS_CONTROL, which the test has
 * mapped too; see interposing.py. Only the database's own files are touched: those whose path
 * contains "wallets.db".
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { WRITE_ERRNO, SYNC_ERRNO, OPEN_ERRNO, SYNC_DELAY_MS, CLOCK_OFFSET_S, FAILED, SYNCED, NUMBERS };

static volatile int64_t none[NUMBERS];
static volatile int64_t *numbers = none;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAULTS_CONTROL");
    int (*real_open)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    int file = path ? real_open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *mapped = mmap(NULL, sizeof(none), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED)
        numbers = mapped;
}

static int is_database(int file) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0)
        return 0;
    path[length] = 0;
    return strstr(path, "wallets.db") != NULL;
}

/* Whether this call is to fail; errno says how. */
static int fails(int kind, int file) {
    if (!numbers[kind] || !is_database(file))
        return 0;
    __atomic_fetch_add(&numbers[FAILED], 1, __ATOMIC_SEQ_CST);
    errno = (int)numbers[kind];
    return 1;
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) \
        real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t write(int file, const void *data, size_t size) {
    REAL(write);
    return fails(WRITE_ERRNO, file) ? -1 : real(file, data, size);
}

ssize_t pwrite(int file, const void *data, size_t size, off_t at) {
    REAL(pwrite);
    return fails(WRITE_ERRNO, file) ? -1 : real(file, data, size, at);
}

ssize_t pwrite64(int file, const void *data, size_t size, off64_t at) {
    REAL(pwrite64);
    return fails(WRITE_ERRNO, file) ? -1 : real(file, data, size, at);
}

int ftruncate(int file, off_t size) {
    REAL(ftruncate);
    return fails(WRITE_ERRNO, file) ? -1 : real(file, size);
}

int ftruncate64(int file, off64_t size) {
    REAL(ftruncate64);
    return fails(WRITE_ERRNO, file) ? -1 : real(file, size);
}

static void delay(int file) {
    int64_t delay_ms = numbers[SYNC_DELAY_MS];
    if (delay_ms && is_database(file)) {
        struct timespec left = {delay_ms / 1000, delay_ms % 1000 * 1000000};
        nanosleep(&left, NULL);
        __atomic_fetch_add(&numbers[SYNCED], 1, __ATOMIC_SEQ_CST);
    }
}

int fsync(int file) {
    REAL(fsync);
    delay(file);
    return fails(SYNC_ERRNO, file) ? -1 : real(file);
}

int fdatasync(int file) {
    REAL(fdatasync);
    delay(file);
    return fails(SYNC_ERRNO, file) ? -1 : real(file);
}

static int open_fails(const char *path, int flags) {
    if (!numbers[OPEN_ERRNO] || !strstr(path, "wallets.db"))
        return 0;
    if ((flags & O_ACCMODE) == O_RDONLY && numbers[OPEN_ERRNO] == EROFS)
        return 0;
    __atomic_fetch_add(&numbers[FAILED], 1, __ATOMIC_SEQ_CST);
    errno = (int)numbers[OPEN_ERRNO];
    return 1;
}

#define OPENING(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name); \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more); \
        return open_fails(path, flags) ? -1 : real(path, flags, mode); \
    }

OPENING(open)
OPENING(open64)

int clock_gettime(clockid_t clock, struct timespec *now) {
    REAL(clock_gettime);
    int failed = real(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += numbers[CLOCK_OFFSET_S];
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    REAL(gettimeofday);
    int failed = real(now, zone);
    if (!failed)
        now->tv_sec += numbers[CLOCK_OFFSET_S];
    return failed;
}

time_t time(time_t *where) {
    REAL(time);
    time_t now = real(NULL) + numbers[CLOCK_OFFSET_S];
    if (where)
        *where = now;
    return now;
}
