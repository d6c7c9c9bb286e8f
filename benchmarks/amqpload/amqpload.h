/* What the parts of amqpload share: options, a connection, counters. */
#ifndef AMQPLOAD_H
#define AMQPLOAD_H
#define _GNU_SOURCE
#include "histogram.h"
#include "wire.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { SETUP, PUB, CON };

typedef struct {
    char host[64];
    int port;
} addr;

typedef struct {
    addr publish_hosts[16], consume_hosts[16];
    int publish_host_count, consume_host_count, setup_host;
    int publishers, consumers, queues, bindings, size, priorities, lifetimes;
    int tls, persistent, message_ids, confirm, prefetch, ack_every, transient, keep, no_declare, reconnect;
    uint64_t window, messages;
    double secs, warm_up, rate, drain_timeout;
    const char *queue_type, *exchange_type, *label;
    int fanout;
    char prefix[80], exchange[100];
    char *argument_keys[32], *argument_values[32];
    int arguments, concurrency;
    int pids[16], pid_count;
    int kill_pid;
    double kill_at;
} options;

extern options opt;

/* a published message that is not confirmed yet */
typedef struct {
    uint64_t ts, seq;
    int live;
} slot;

typedef struct conn {
    int fd, role, idx, hidx, want_out, dead; /* hidx: which host it is connected to */
    void *tls;                               /* 0: none */
    uint8_t *rb;                             /* read buffer, [rpos, rlen) not parsed yet */
    size_t rpos, rlen, rcap;
    obuf out;
    /* publisher */
    slot *ring; /* slot of delivery tag t is ring[t & ring_mask]; tags start at 1 */
    uint64_t ring_mask, next_tag, low_tag;
    uint64_t next_seq, inflight, hiwater;
    slot *resend; /* unconfirmed when the previous connection was lost */
    size_t nresend, presend;
    uint8_t *confbm; /* bit s: sequence number s was confirmed */
    size_t confcap;
    /* consumer */
    uint64_t last_tag, unacked, body_left;
    int cstate, cq, redel; /* cq: the queue of the message being read */
} conn;

extern conn *publishers, *consumers;

typedef struct {
    uint64_t published, confirmed, nacked, received, redelivered, duplicates, reordered, errors,
        cancels, returned, reconnects, bytes;
} tally;

extern tally count;

/* the longest time without a confirm or a delivery, before and after a broker was killed */
typedef struct {
    uint64_t last, longest_before, longest_after, longest_after_end;
} gaps;

extern gaps confirm_gaps, delivery_gaps;
void note_gap(gaps *g, uint64_t now);

extern hist confirm_latency, end_to_end_latency;
extern uint64_t t_start, t_kill;
extern int measuring, stopping;

/* account.c */
typedef struct {
    double utime, stime;
    long rss_kb;
} usage;

typedef struct {
    uint64_t pub, conf, recv, bytes;
    double cpu; /* of this process */
    usage b;    /* of the broker */
    double sys; /* busy time of all cores */
    uint64_t t;
} snap;

long process_rss_kb(int pid);
usage broker_usage(void);
double own_cpu_s(void);
double machine_busy_s(void);
snap take(void);

/* socket.c: as send, recv and close */
int start_tls(conn *c); /* blocking; 0 or -1 */
ssize_t send_bytes(conn *c, const void *bytes, size_t n);
ssize_t receive_bytes(conn *c, void *bytes, size_t n);
int has_pending(const conn *c); /* received and not read yet, so that no event tells of it */
void close_socket(conn *c);

/* client.c: 0 or -1 with last_error or errno set */
extern char last_error[300];
extern int frame_max;
int die(const char *f, ...);
int flush_all(conn *c);
int expect(conn *c, int cls, int mth, const uint8_t **out, uint32_t *ol);
int open_session(conn *c, const addr *a, int open_ch);
int close_session(conn *c);
int declare_queue(conn *c, const char *name);
int delete_queue(conn *c, const char *name);
void queue_name(char *b, int i);
void topic_key(char *b, int k, int pattern);
int declare_all(conn *c);
void delete_all(void);

/* connection.c */
extern int epoll_fd;
void want_write(conn *c, int out);
void watch(conn *c);
int open_connection(conn *c);
void lose(conn *c, const char *why);
void flush_some(conn *c);
int read_some(conn *c);
void read_leftover(conn *c);

/* publisher.c */
void build_templates(void);
int priority_of(int publisher, uint64_t seq);
uint64_t quota(conn *c);
uint64_t due(conn *c, uint64_t n);
void pump(conn *c);
int publisher_frame(conn *c, int type, const uint8_t *p, uint32_t n, uint64_t now);

/* consumer.c */
#define MAXPUB 256
extern uint8_t **seen; /* per queue (of a fan-out) and publisher: bit s, sequence number s came */
extern size_t *seen_bytes;
extern uint64_t *last_sequence; /* per consumer, queue, priority and publisher: 1 + the last that
                                 * came */
extern int seen_pubs, seen_priorities;
void put_ack(conn *c, uint64_t tag, int mult);
int consumer_frame(conn *c, int type, const uint8_t *p, uint32_t n, uint64_t now);

/* run.c, workers.c, report.c */
typedef struct {
    snap begin, end, published, drained; /* t == 0: not reached yet */
    uint64_t lost, lost_unconfirmed, copies;
    double peak_rss_kb, setup_ms;
} measurement;

void report(const measurement *m);
int mode_run(void);
int mode_workers(const char *mode);
int mode_ping(void);

static inline void bm_set(uint8_t **bm, size_t *cap, uint64_t s) {
    size_t by = s >> 3;
    if (by >= *cap) {
        size_t nc = *cap ? *cap : 65536;
        while (by >= nc)
            nc *= 2;
        *bm = realloc(*bm, nc);
        if (!*bm) {
            perror("realloc");
            exit(3);
        }
        memset(*bm + *cap, 0, nc - *cap);
        *cap = nc;
    }
    (*bm)[by] |= (uint8_t)(1u << (s & 7));
}

static inline int bm_get(const uint8_t *bm, size_t cap, uint64_t s) {
    return (s >> 3) < cap && (bm[s >> 3] >> (s & 7) & 1);
}
#endif
