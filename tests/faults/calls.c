/* Loaded before the C library (LD_PRELOAD): counts the calls on files below one folder, lets one of them fail, or all
   of some kind from one on, and keeps a record of what changed the disk. calls.py tells it what to do. */

#define _GNU_SOURCE
#define _LARGEFILE64_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define SHORT -1 /* in place of an error: a write that takes half of what it is given */

static char watched[PATH_MAX];
static long count, fail_at, fail_error;
static int fail_on;  /* from there on every call that takes room */
static int record = -1;
static char hit[PATH_MAX + 64];

void calls_watch(const char *folder) { snprintf(watched, sizeof watched, "%s", folder); }
void calls_fail(long at, long error, int on) { count = 0; fail_at = at; fail_error = error; fail_on = on; hit[0] = 0; }
void calls_record(int fd) { record = fd; }
long calls_count(void) { return count; }
const char *calls_hit(void) { return hit; }

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static const char *of_fd(int fd, char *place) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = fd < 0 ? -1 : readlink(link, place, PATH_MAX - 1);
    place[size < 0 ? 0 : size] = 0;
    return place;
}

static const char *absolute(int folder, const char *path, char *place) {
    char base[PATH_MAX];
    if (path[0] == '/') return path;
    if (folder == AT_FDCWD) { if (!getcwd(base, sizeof base)) base[0] = 0; }
    else of_fd(folder, base);
    snprintf(place, PATH_MAX, "%s%s%s", base, path[0] ? "/" : "", path);
    return place;
}

static int is_watched(const char *path) {
    size_t size = strlen(watched);
    return size && !strncmp(path, watched, size) && (path[size] == '/' || path[size] == 0);
}

/* Whether this call is to fail; `room` says whether it takes room on the disk. */
static int fails(const char *name, const char *path, int room) {
    if (!is_watched(path)) return 0;
    long number = __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST);
    if (!fail_at || !(number == fail_at || (fail_on && number > fail_at && room))) return 0;
    if (!hit[0]) snprintf(hit, sizeof hit, "%s\t%s", name, path);
    if (fail_error == SHORT) return 0;
    errno = (int)fail_error;
    return 1;
}

static void note(const char *name, const char *path, const char *other, int fd, long offset, const void *data, long size) {
    char line[3 * PATH_MAX];
    if (record < 0 || !(is_watched(path) || is_watched(other))) return;
    int length = snprintf(line, sizeof line, "%s\t%s\t%s\t%d\t%ld\t%ld\n", name, path, other, fd, offset, size);
    REAL(write);
    if (real(record, line, length) != length || (data && real(record, data, size) != size)) _exit(99);
}

static int opened(int fd, const char *path, int flags, int existed) {
    if (fd >= 0 && (flags & O_TRUNC || (flags & O_CREAT && !existed)))
        note(existed ? "truncate" : "create", path, "", fd, 0, NULL, 0);
    return fd;
}

#define OPENS(name, PARAMETERS, FOLDER, ...) \
    int name PARAMETERS { \
        char place[PATH_MAX]; \
        mode_t mode = 0; \
        if (flags & O_CREAT) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); } \
        const char *whole = absolute(FOLDER, path, place); \
        int kept = errno, existed = is_watched(whole) && !faccessat(FOLDER, path, F_OK, AT_SYMLINK_NOFOLLOW); \
        errno = kept; \
        if (fails(flags & O_CREAT ? "create" : "open", whole, flags & O_CREAT)) return -1; \
        REAL(name); \
        return opened(real(__VA_ARGS__, flags, mode), whole, flags, existed); \
    }
OPENS(open, (const char *path, int flags, ...), AT_FDCWD, path)
OPENS(open64, (const char *path, int flags, ...), AT_FDCWD, path)
OPENS(openat, (int folder, const char *path, int flags, ...), folder, folder, path)
OPENS(openat64, (int folder, const char *path, int flags, ...), folder, folder, path)

/* Calls with a descriptor. */
#define ON_FD(type, name, said, failed, room, PARAMETERS, ...) \
    type name PARAMETERS { \
        char place[PATH_MAX]; \
        if (fails(said, of_fd(fd, place), room)) return failed; \
        REAL(name); \
        return real(__VA_ARGS__); \
    }
ON_FD(ssize_t, read, "read", -1, 0, (int fd, void *data, size_t size), fd, data, size)
ON_FD(ssize_t, pread64, "read", -1, 0, (int fd, void *data, size_t size, off64_t at), fd, data, size, at)
ON_FD(ssize_t, pwrite64, "write", -1, 1, (int fd, const void *data, size_t size, off64_t at), fd, data, size, at)
ON_FD(int, flock, "flock", -1, 0, (int fd, int operation), fd, operation)
ON_FD(int, fchmod, "chmod", -1, 0, (int fd, mode_t mode), fd, mode)
ON_FD(int, fstat64, "stat", -1, 0, (int fd, struct stat64 *found), fd, found)
ON_FD(DIR *, fdopendir, "list", NULL, 0, (int fd), fd)
ON_FD(void *, mmap64, "mmap", MAP_FAILED, 0, (void *at, size_t size, int may, int how, int fd, off64_t offset), at, size,
      may, how, fd, offset)

ssize_t write(int fd, const void *data, size_t size) {
    char place[PATH_MAX];
    const char *path = of_fd(fd, place);
    if (fails("write", path, 1)) return -1;
    int half = fail_error == SHORT && fail_at && count == fail_at && is_watched(path) && size > 1;
    REAL(write);
    off64_t at = record < 0 ? 0 : lseek64(fd, 0, SEEK_CUR);
    ssize_t done = real(fd, data, half ? size / 2 : size);
    if (done > 0) {
        if (record >= 0 && fcntl(fd, F_GETFL) & O_APPEND) at = lseek64(fd, 0, SEEK_CUR) - done;
        note("write", path, "", fd, at, data, done);
    }
    return done;
}

int close(int fd) { /* as on Linux, one that fails has closed it all the same */
    char place[PATH_MAX];
    int failed = fails("close", of_fd(fd, place), 0), error = errno;
    REAL(close);
    int done = real(fd);
    if (failed) errno = error;
    return failed ? -1 : done;
}

/* Nothing waits for the disk: what would be lost without it is worked out from the record. */
#define SYNCS(name) \
    int name(int fd) { \
        char place[PATH_MAX]; \
        const char *path = of_fd(fd, place); \
        if (fails("fsync", path, 1)) return -1; \
        if (!is_watched(path)) { REAL(name); return real(fd); } \
        note("fsync", path, "", fd, 0, NULL, 0); \
        return 0; \
    }
SYNCS(fsync)
SYNCS(fdatasync)

int ftruncate64(int fd, off64_t size) {
    char place[PATH_MAX];
    const char *path = of_fd(fd, place);
    if (fails("truncate", path, 1)) return -1;
    REAL(ftruncate64);
    int done = real(fd, size);
    if (!done) note("resize", path, "", fd, size, NULL, 0);
    return done;
}

/* Calls with a path, and with two. */
#define ON_PATH(type, name, said, failed, room, noted, FOLDER, PARAMETERS, ...) \
    type name PARAMETERS { \
        char place[PATH_MAX]; \
        const char *whole = absolute(FOLDER, path, place); \
        if (fails(said, whole, room)) return failed; \
        REAL(name); \
        type done = real(__VA_ARGS__); \
        if (noted && !done) note(said, whole, "", -1, 0, NULL, 0); \
        return done; \
    }
ON_PATH(int, unlink, "unlink", -1, 0, 1, AT_FDCWD, (const char *path), path)
ON_PATH(int, unlinkat, "unlink", -1, 0, 1, folder, (int folder, const char *path, int flags), folder, path, flags)
ON_PATH(int, rmdir, "unlink", -1, 0, 1, AT_FDCWD, (const char *path), path)
ON_PATH(int, mkdir, "mkdir", -1, 1, 1, AT_FDCWD, (const char *path, mode_t mode), path, mode)
ON_PATH(int, mkdirat, "mkdir", -1, 1, 1, folder, (int folder, const char *path, mode_t mode), folder, path, mode)
ON_PATH(int, chmod, "chmod", -1, 0, 0, AT_FDCWD, (const char *path, mode_t mode), path, mode)
ON_PATH(int, access, "stat", -1, 0, 0, AT_FDCWD, (const char *path, int mode), path, mode)
ON_PATH(int, stat64, "stat", -1, 0, 0, AT_FDCWD, (const char *path, struct stat64 *found), path, found)
ON_PATH(int, lstat64, "stat", -1, 0, 0, AT_FDCWD, (const char *path, struct stat64 *found), path, found)
ON_PATH(int, fstatat64, "stat", -1, 0, 0, folder, (int folder, const char *path, struct stat64 *found, int flags), folder,
        path, found, flags)
ON_PATH(int, statvfs64, "statvfs", -1, 0, 0, AT_FDCWD, (const char *path, struct statvfs64 *found), path, found)
ON_PATH(int, utimensat, "utime", -1, 0, 0, folder, (int folder, const char *path, const struct timespec *at, int flags),
        folder, path, at, flags)
ON_PATH(DIR *, opendir, "list", NULL, 0, 0, AT_FDCWD, (const char *path), path)

#define ON_TWO(name, said, FOLDER, OTHER, PARAMETERS, ...) \
    int name PARAMETERS { \
        char place[PATH_MAX], second[PATH_MAX]; \
        const char *whole = absolute(FOLDER, path, place), *target = absolute(OTHER, other, second); \
        if (fails(said, is_watched(whole) ? whole : target, 1)) return -1; \
        REAL(name); \
        int done = real(__VA_ARGS__); \
        if (!done) note(said, whole, target, -1, 0, NULL, 0); \
        return done; \
    }
ON_TWO(rename, "rename", AT_FDCWD, AT_FDCWD, (const char *path, const char *other), path, other)
ON_TWO(renameat, "rename", folder, to, (int folder, const char *path, int to, const char *other), folder, path, to, other)
ON_TWO(link, "link", AT_FDCWD, AT_FDCWD, (const char *path, const char *other), path, other)
ON_TWO(linkat, "link", folder, to, (int folder, const char *path, int to, const char *other, int flags), folder, path, to,
       other, flags)
