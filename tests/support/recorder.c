/* Preloaded into a process, notes what it does to files named data.mdb, in order, in the file
   $RECORDER_TRACE.  An event is kind:1 at:8 offset:8 length:8, big-endian, and its bytes; `at` are
   nanoseconds of the clock that all processes of a machine share:

     W offset bytes   written; on the disk at some time before the next S
     D offset bytes   written through a descriptor that is synchronous: on the disk
     S                everything written is on the disk
     M bytes          what the process wrote to the descriptor of $RECORDER_MARKS: a mark
     N port bytes     with $RECORDER_SOCKETS: about to be sent to this port of a TCP socket's peer
     R port           only `length` bytes were taken of the last N to this port

   D and S are noted once they are done, N before: so what was sent before something was on the
   disk stands before it.  With $RECORDER_SYNC_MS each sync takes so much longer, as on a disk that
   is slow: whoever does not wait for it is far ahead then. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_pwritev)(int, const struct iovec *, int, off_t);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static ssize_t (*real_sendmsg)(int, const struct msghdr *, int);
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int trace = -1, marks = -1, with_sockets, sync_ms;

__attribute__((constructor)) static void start(void)
{
    real_pwrite = dlsym(RTLD_NEXT, "pwrite");
    real_pwritev = dlsym(RTLD_NEXT, "pwritev");
    real_write = dlsym(RTLD_NEXT, "write");
    real_writev = dlsym(RTLD_NEXT, "writev");
    real_sendmsg = dlsym(RTLD_NEXT, "sendmsg");
    trace = open(getenv("RECORDER_TRACE"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (getenv("RECORDER_MARKS"))
        marks = atoi(getenv("RECORDER_MARKS"));
    with_sockets = getenv("RECORDER_SOCKETS") != NULL;
    if (getenv("RECORDER_SYNC_MS"))
        sync_ms = atoi(getenv("RECORDER_SYNC_MS"));
}

static int is_data(int descriptor)
{
    char link[64], path[4096];
    ssize_t length;
    const size_t name = strlen("/data.mdb");

    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    length = readlink(link, path, sizeof path);
    return length > (ssize_t)name && memcmp(path + length - name, "/data.mdb", name) == 0;
}

/* The port of the other end of a TCP connection; 0 for anything else. */
static int peer_port(int descriptor)
{
    struct sockaddr_storage name;
    socklen_t length = sizeof name;

    if (!with_sockets || getpeername(descriptor, (struct sockaddr *)&name, &length) != 0)
        return 0;
    if (name.ss_family == AF_INET)
        return ntohs(((struct sockaddr_in *)&name)->sin_port);
    if (name.ss_family == AF_INET6)
        return ntohs(((struct sockaddr_in6 *)&name)->sin6_port);
    return 0;
}

static size_t total(const struct iovec *pieces, int count)
{
    size_t length = 0;
    int i;

    for (i = 0; i < count; i++)
        length += pieces[i].iov_len;
    return length;
}

static void note(char kind, uint64_t offset, uint64_t length, const struct iovec *pieces, int count)
{
    unsigned char head[25];
    struct timespec now;
    uint64_t at;
    int i;

    pthread_mutex_lock(&lock);
    clock_gettime(CLOCK_MONOTONIC, &now);
    at = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
    head[0] = (unsigned char)kind;
    for (i = 0; i < 8; i++) {
        head[1 + i] = (unsigned char)(at >> (56 - 8 * i));
        head[9 + i] = (unsigned char)(offset >> (56 - 8 * i));
        head[17 + i] = (unsigned char)(length >> (56 - 8 * i));
    }
    real_write(trace, head, sizeof head);
    for (i = 0; i < count; i++)
        real_write(trace, pieces[i].iov_base, pieces[i].iov_len);
    pthread_mutex_unlock(&lock);
}

/* What a write to a file has come to. */
static ssize_t wrote(ssize_t result, int descriptor, off_t offset, const struct iovec *pieces,
                     int count)
{
    if (result >= 0 && is_data(descriptor))
        note(fcntl(descriptor, F_GETFL) & O_DSYNC ? 'D' : 'W', (uint64_t)offset,
             total(pieces, count), pieces, count);
    return result;
}

static void sending(int port, const struct iovec *pieces, int count)
{
    note('N', (uint64_t)port, total(pieces, count), pieces, count);
}

/* What a write to a socket has come to. */
static ssize_t sent(ssize_t result, int port, const struct iovec *pieces, int count)
{
    int error = errno;

    if (result != (ssize_t)total(pieces, count))
        note('R', (uint64_t)port, result < 0 ? 0 : (uint64_t)result, NULL, 0);
    errno = error;
    return result;
}

ssize_t pwrite(int descriptor, const void *bytes, size_t length, off_t offset)
{
    struct iovec piece = {(void *)bytes, length};

    return wrote(real_pwrite(descriptor, bytes, length, offset), descriptor, offset, &piece, 1);
}

ssize_t pwrite64(int descriptor, const void *bytes, size_t length, off_t offset)
{
    return pwrite(descriptor, bytes, length, offset);
}

ssize_t pwritev(int descriptor, const struct iovec *pieces, int count, off_t offset)
{
    return wrote(real_pwritev(descriptor, pieces, count, offset), descriptor, offset, pieces,
                 count);
}

ssize_t write(int descriptor, const void *bytes, size_t length)
{
    struct iovec piece = {(void *)bytes, length};
    int port = peer_port(descriptor);

    if (port) {
        sending(port, &piece, 1);
        return sent(real_write(descriptor, bytes, length), port, &piece, 1);
    }
    if (descriptor == marks)
        note('M', 0, length, &piece, 1);
    off_t at = lseek(descriptor, 0, SEEK_CUR);
    return wrote(real_write(descriptor, bytes, length), descriptor, at, &piece, 1);
}

ssize_t writev(int descriptor, const struct iovec *pieces, int count)
{
    int port = peer_port(descriptor);

    if (port) {
        sending(port, pieces, count);
        return sent(real_writev(descriptor, pieces, count), port, pieces, count);
    }
    off_t at = lseek(descriptor, 0, SEEK_CUR);
    return wrote(real_writev(descriptor, pieces, count), descriptor, at, pieces, count);
}

ssize_t sendmsg(int descriptor, const struct msghdr *message, int flags)
{
    int port = peer_port(descriptor);

    if (!port)
        return real_sendmsg(descriptor, message, flags);
    sending(port, message->msg_iov, (int)message->msg_iovlen);
    return sent(real_sendmsg(descriptor, message, flags), port, message->msg_iov,
                (int)message->msg_iovlen);
}

static int sync_with(const char *name, int descriptor)
{
    int (*real)(int) = dlsym(RTLD_NEXT, name);
    struct timespec slow = {0, sync_ms * 1000000L};
    int result;

    if (sync_ms && is_data(descriptor))
        nanosleep(&slow, NULL);
    result = real(descriptor);
    if (result == 0 && is_data(descriptor))
        note('S', 0, 0, NULL, 0);
    return result;
}

int fdatasync(int descriptor)
{
    return sync_with("fdatasync", descriptor);
}

int fsync(int descriptor)
{
    return sync_with("fsync", descriptor);
}
