/* What is done one step at a time: opening connections, declaring, deleting. */
#include "amqpload.h"

char last_error[300];
int frame_max = 131072;

int die(const char *f, ...) {
    va_list a;
    va_start(a, f);
    vfprintf(stderr, f, a);
    va_end(a);
    fputc('\n', stderr);
    exit(2);
}

static int tcp_connect(const addr *a) {
    struct sockaddr_in s;
    memset(&s, 0, sizeof s);
    s.sin_family = AF_INET;
    s.sin_port = htons((uint16_t)a->port);
    if (inet_pton(AF_INET, a->host, &s.sin_addr) != 1) {
        errno = EINVAL;
        return -1;
    }
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    if (fd < 0)
        return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct timeval tv = {60, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    if (connect(fd, (struct sockaddr *)&s, sizeof s) < 0) {
        int e = errno;
        close(fd);
        errno = e;
        return -1;
    }
    return fd;
}

int flush_all(conn *c) {
    while (c->out.off < c->out.len) {
        ssize_t n = send_bytes(c, c->out.p + c->out.off, c->out.len - c->out.off);
        if (n <= 0) {
            if (n < 0 && errno == EINTR)
                continue;
            return -1;
        }
        c->out.off += (size_t)n;
    }
    c->out.off = c->out.len = 0;
    return 0;
}

/* one frame in blocking mode; payload pointer valid until the next call */
static int next_frame(conn *c, int *type, const uint8_t **pl, uint32_t *len) {
    for (;;) {
        size_t have = c->rlen - c->rpos;
        if (have >= 8) {
            uint32_t n = g32(c->rb + c->rpos + 3);
            if (have >= 8 + (size_t)n) {
                *type = c->rb[c->rpos];
                *pl = c->rb + c->rpos + 7;
                *len = n;
                c->rpos += 8 + (size_t)n;
                if (*type == 8)
                    continue;
                return 0;
            }
        }
        if (c->rpos) {
            memmove(c->rb, c->rb + c->rpos, have);
            c->rlen = have;
            c->rpos = 0;
        }
        if (c->rlen == c->rcap) {
            c->rcap = c->rcap ? c->rcap * 2 : 16384;
            c->rb = realloc(c->rb, c->rcap);
        }
        ssize_t r = receive_bytes(c, c->rb + c->rlen, c->rcap - c->rlen);
        if (r <= 0) {
            if (r < 0 && errno == EINTR)
                continue;
            return -1;
        }
        c->rlen += (size_t)r;
    }
}

int expect(conn *c, int cls, int mth, const uint8_t **out, uint32_t *ol) {
    int t;
    const uint8_t *p;
    uint32_t n;
    if (next_frame(c, &t, &p, &n) < 0)
        return -1;
    if (t != 1 || g16(p) != (unsigned)cls || g16(p + 2) != (unsigned)mth) {
        if (t == 1 && ((g16(p) == 10 && g16(p + 2) == 50) || (g16(p) == 20 && g16(p + 2) == 40)))
            snprintf(last_error, sizeof last_error, "server closed: %u %.*s", g16(p + 4), (int)p[6],
                     p + 7);
        else
            snprintf(last_error, sizeof last_error, "expected %d.%d got type %d %u.%u", cls, mth, t,
                     g16(p), g16(p + 2));
        errno = EPROTO;
        return -1;
    }
    if (out) {
        *out = p;
        *ol = n;
    }
    return 0;
}

int open_session(conn *c, const addr *a, int open_ch) {
    c->rpos = c->rlen = 0;
    c->out.off = c->out.len = 0;
    c->fd = tcp_connect(a);
    if (c->fd < 0)
        return -1;
    const uint8_t *p;
    uint32_t n;
    c->tls = 0;
    if (opt.tls && start_tls(c))
        goto bad;
    put(&c->out, "AMQP\0\0\x09\x01", 8);
    if (flush_all(c) || expect(c, 10, 10, 0, 0))
        goto bad;
    size_t f = m_begin(&c->out, 0, 10, 11), tb = c->out.len;
    p32(&c->out, 0);
    pss(&c->out, "product");
    p8(&c->out, 'S');
    pls(&c->out, "amqpload", 8);
    pss(&c->out, "capabilities");
    p8(&c->out, 'F');
    size_t cb = c->out.len;
    p32(&c->out, 0);
    const char *caps[] = {"publisher_confirms", "basic.nack", "consumer_cancel_notify",
                          "connection.blocked", "authentication_failure_close"};
    for (int i = 0; i < 5; i++) {
        pss(&c->out, caps[i]);
        p8(&c->out, 't');
        p8(&c->out, 1);
    }
    uint32_t v = htonl((uint32_t)(c->out.len - cb - 4));
    memcpy(c->out.p + cb, &v, 4);
    v = htonl((uint32_t)(c->out.len - tb - 4));
    memcpy(c->out.p + tb, &v, 4);
    pss(&c->out, "PLAIN");
    pls(&c->out, "\0guest\0guest", 12);
    pss(&c->out, "en_US");
    fr_end(&c->out, f);
    if (flush_all(c) || expect(c, 10, 30, &p, &n))
        goto bad;
    unsigned chmax = g16(p + 4);
    uint32_t fm = g32(p + 6);
    if (fm == 0 || fm > 131072)
        fm = 131072;
    f = m_begin(&c->out, 0, 10, 31);
    p16(&c->out, chmax);
    p32(&c->out, fm);
    p16(&c->out, 0);
    fr_end(&c->out, f);
    f = m_begin(&c->out, 0, 10, 40);
    pss(&c->out, "/");
    pss(&c->out, "");
    p8(&c->out, 0);
    fr_end(&c->out, f);
    if (flush_all(c) || expect(c, 10, 41, 0, 0))
        goto bad;
    frame_max = (int)fm;
    if (open_ch) {
        f = m_begin(&c->out, 1, 20, 10);
        pss(&c->out, "");
        fr_end(&c->out, f);
        if (flush_all(c) || expect(c, 20, 11, 0, 0))
            goto bad;
    }
    return 0;
bad:
    {
        int e = errno;
        close_socket(c);
        c->fd = -1;
        errno = e;
        return -1;
    }
}

int close_session(conn *c) {
    size_t f = m_begin(&c->out, 0, 10, 50);
    p16(&c->out, 200);
    pss(&c->out, "bye");
    p16(&c->out, 0);
    p16(&c->out, 0);
    fr_end(&c->out, f);
    int r = flush_all(c) || expect(c, 10, 51, 0, 0);
    close_socket(c);
    c->fd = -1;
    return r ? -1 : 0;
}

static void put_declare(conn *c, const char *name) {
    size_t f = m_begin(&c->out, 1, 50, 10);
    p16(&c->out, 0);
    pss(&c->out, name);
    p8(&c->out, opt.transient ? 0 : 2);
    size_t tb = c->out.len - c->out.off;
    p32(&c->out, 0);
    pss(&c->out, "x-queue-type");
    p8(&c->out, 'S');
    pls(&c->out, opt.queue_type, strlen(opt.queue_type));
    for (int i = 0; i < opt.arguments; i++) {
        char *e;
        long long iv = strtoll(opt.argument_values[i], &e, 10);
        pss(&c->out, opt.argument_keys[i]);
        if (*opt.argument_values[i] && !*e) {
            p8(&c->out, 'l');
            p64(&c->out, (uint64_t)iv);
        } else {
            p8(&c->out, 'S');
            pls(&c->out, opt.argument_values[i], strlen(opt.argument_values[i]));
        }
    }
    uint32_t v = htonl((uint32_t)(c->out.len - c->out.off - tb - 4));
    memcpy(c->out.p + c->out.off + tb, &v, 4);
    fr_end(&c->out, f);
}

int declare_queue(conn *c, const char *name) {
    put_declare(c, name);
    return flush_all(c) || expect(c, 50, 11, 0, 0) ? -1 : 0;
}

int delete_queue(conn *c, const char *name) {
    size_t f = m_begin(&c->out, 1, 50, 40);
    p16(&c->out, 0);
    pss(&c->out, name);
    p8(&c->out, 0);
    fr_end(&c->out, f);
    return flush_all(c) || expect(c, 50, 41, 0, 0) ? -1 : 0;
}

void queue_name(char *b, int i) {
    if (opt.queues == 1)
        sprintf(b, "%s", opt.prefix);
    else
        sprintf(b, "%s.%d", opt.prefix, i);
}

void topic_key(char *b, int k, int pattern) { /* topic bindings: half with *, half with # */
    if (pattern)
        sprintf(b, (k & 1) ? "k%d.*.x.y" : "k%d.#", k);
    else
        sprintf(b, "k%d.mid.x.y", k);
}

int declare_all(conn *c) {
    char q[128], k[64];
    size_t f;
    if (strcmp(opt.exchange_type, "direct")) {
        f = m_begin(&c->out, 1, 40, 10);
        p16(&c->out, 0);
        pss(&c->out, opt.exchange);
        pss(&c->out, opt.exchange_type);
        p8(&c->out, opt.transient ? 0 : 2);
        p32(&c->out, 0);
        fr_end(&c->out, f);
        if (flush_all(c) || expect(c, 40, 11, 0, 0))
            return -1;
    }
    for (int i = 0; i < opt.queues; i++) {
        queue_name(q, i);
        if (declare_queue(c, q))
            return -1;
    }
    int nb = opt.fanout ? opt.queues : (strcmp(opt.exchange_type, "topic") ? 0 : opt.bindings);
    for (int b = 0; b < nb; b++) {
        queue_name(q, b % opt.queues);
        if (opt.fanout)
            k[0] = 0;
        else
            topic_key(k, b, 1);
        f = m_begin(&c->out, 1, 50, 20);
        p16(&c->out, 0);
        pss(&c->out, q);
        pss(&c->out, opt.exchange);
        pss(&c->out, k);
        p8(&c->out, 0);
        p32(&c->out, 0);
        fr_end(&c->out, f);
        if (flush_all(c) || expect(c, 50, 21, 0, 0))
            return -1;
    }
    return 0;
}

void delete_all(void) {
    conn c;
    memset(&c, 0, sizeof c);
    for (int i = 0; i < opt.publish_host_count; i++)
        if (!open_session(&c, &opt.publish_hosts[(opt.setup_host + i) % opt.publish_host_count],
                          1)) {
            char q[128];
            for (int j = 0; j < opt.queues; j++) {
                queue_name(q, j);
                if (delete_queue(&c, q)) {
                    fprintf(stderr, "delete %s: %s\n", q, last_error);
                    return;
                }
            }
            if (strcmp(opt.exchange_type, "direct")) {
                size_t f = m_begin(&c.out, 1, 40, 20);
                p16(&c.out, 0);
                pss(&c.out, opt.exchange);
                p8(&c.out, 0);
                fr_end(&c.out, f);
                if (flush_all(&c) || expect(&c, 40, 21, 0, 0))
                    return;
            }
            close_session(&c);
            return;
        }
}
