/* A connection driven by epoll: who it is, what it waits for, how it is lost and found again. */
#include "amqpload.h"

int epoll_fd;

void want_write(conn *c, int out) {
    if (c->want_out == out || c->fd < 0)
        return;
    struct epoll_event e = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
    c->want_out = out;
}

void watch(conn *c) {
    fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) | O_NONBLOCK);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    c->want_out = 0;
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &e);
}

static int start_role(conn *c) {
    size_t f;
    if (c->role == PUB) {
        if (opt.confirm) {
            f = m_begin(&c->out, 1, 85, 10);
            p8(&c->out, 0);
            fr_end(&c->out, f);
            if (flush_all(c) || expect(c, 85, 11, 0, 0))
                return -1;
        }
    } else {
        if (opt.prefetch && opt.ack_every) {
            f = m_begin(&c->out, 1, 60, 10);
            p32(&c->out, 0);
            p16(&c->out, (unsigned)opt.prefetch);
            p8(&c->out, 0);
            fr_end(&c->out, f);
            if (flush_all(c) || expect(c, 60, 11, 0, 0))
                return -1;
        }
        for (int q = 0; q < opt.queues; q++) {
            if (opt.queues >= opt.consumers ? (q % opt.consumers != c->idx)
                                            : (c->idx % opt.queues != q))
                continue;
            char n[128], t[32];
            queue_name(n, q);
            sprintf(t, "c%d", q);
            f = m_begin(&c->out, 1, 60, 20);
            p16(&c->out, 0);
            pss(&c->out, n);
            pss(&c->out, t);
            p8(&c->out, (opt.ack_every ? 0 : 2) | 8 /* no-wait */);
            p32(&c->out, 0);
            fr_end(&c->out, f);
        }
        if (flush_all(c))
            return -1;
        c->cstate = 0;
        c->unacked = 0;
    }
    return 0;
}

int open_connection(conn *c) {
    addr *h = c->role == PUB ? opt.publish_hosts : opt.consume_hosts;
    int n = c->role == PUB ? opt.publish_host_count : opt.consume_host_count;
    for (int i = 0; i < n; i++) {
        if (!open_session(c, &h[(c->hidx + i) % n], 1)) {
            c->hidx = (c->hidx + i) % n;
            if (start_role(c))
                return -1;
            return 0;
        }
    }
    return -1;
}

void lose(conn *c, const char *why) {
    if (c->dead)
        return;
    count.errors++;
    snprintf(last_error, sizeof last_error, "%s connection %d lost: %s",
             c->role == PUB ? "publisher" : "consumer", c->idx, why);
    fprintf(stderr, "%s at %.3fs\n", last_error, (double)(now_ns() - t_start) / 1e9);
    if (c->fd >= 0) {
        epoll_ctl(epoll_fd, EPOLL_CTL_DEL, c->fd, 0);
        close_socket(c);
        c->fd = -1;
    }
    c->dead = 1;
    if (!opt.reconnect)
        return;
    if (c->role == PUB && opt.confirm) { /* keep every unconfirmed message to publish it again */
        size_t left = c->nresend - c->presend;
        slot *r = malloc((left + c->inflight + 1) * sizeof *r);
        size_t k = 0;
        for (uint64_t t = c->low_tag; t < c->next_tag; t++) {
            slot *s = &c->ring[t & c->ring_mask];
            if (s->live)
                r[k++] = *s;
        }
        memcpy(r + k, c->resend + c->presend, left * sizeof *r);
        k += left;
        free(c->resend);
        c->resend = r;
        c->nresend = k;
        c->presend = 0;
        c->inflight = 0;
        c->next_tag = c->low_tag = 1;
    }
    c->hidx++;
    if (!open_connection(c)) {
        c->dead = 0;
        count.reconnects++;
        watch(c);
        fprintf(stderr, "reconnected at %.3fs\n", (double)(now_ns() - t_start) / 1e9);
    }
}

void flush_some(conn *c) {
    while (c->out.off < c->out.len) {
        ssize_t n = send_bytes(c, c->out.p + c->out.off, c->out.len - c->out.off);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            if (errno == EAGAIN) {
                want_write(c, 1);
                return;
            }
            lose(c, strerror(errno));
            return;
        }
        c->out.off += (size_t)n;
    }
    c->out.off = c->out.len = 0;
    if (c->role == CON)
        want_write(c, 0);
}

int read_some(conn *c) {
    for (int loops = 0; loops < 4 || has_pending(c); loops++) {
        if (c->rpos) {
            memmove(c->rb, c->rb + c->rpos, c->rlen - c->rpos);
            c->rlen -= c->rpos;
            c->rpos = 0;
        }
        if (c->rcap < 524288) {
            c->rcap = 524288;
            c->rb = realloc(c->rb, c->rcap);
        }
        size_t room = c->rcap - c->rlen;
        ssize_t r = receive_bytes(c, c->rb + c->rlen, room);
        if (r == 0) {
            lose(c, "eof");
            return -1;
        }
        if (r < 0) {
            if (errno == EAGAIN || errno == EINTR)
                break;
            lose(c, strerror(errno));
            return -1;
        }
        c->rlen += (size_t)r;
        uint64_t now = now_ns();
        if (c->role == CON && !stopping)
            note_gap(&delivery_gaps, now);
        while (c->rlen - c->rpos >= 8) {
            uint32_t n = g32(c->rb + c->rpos + 3);
            if (c->rlen - c->rpos < 8 + (size_t)n)
                break;
            const uint8_t *f = c->rb + c->rpos;
            c->rpos += 8 + (size_t)n;
            if (f[7 + n] != 0xCE)
                die("bad frame end");
            if ((c->role == PUB ? publisher_frame : consumer_frame)(c, f[0], f + 7, n, now))
                return -1;
        }
        if ((size_t)r < room && !c->tls)
            break;
    }
    return 0;
}

void read_leftover(conn *c) { /* frames read during the blocking set-up */
    uint64_t now = now_ns();
    while (c->rlen - c->rpos >= 8) {
        uint32_t n = g32(c->rb + c->rpos + 3);
        if (c->rlen - c->rpos < 8 + (size_t)n)
            break;
        const uint8_t *f = c->rb + c->rpos;
        c->rpos += 8 + (size_t)n;
        if ((c->role == PUB ? publisher_frame : consumer_frame)(c, f[0], f + 7, n, now))
            return;
    }
}

void note_gap(gaps *g, uint64_t now) {
    if (g->last) {
        uint64_t gap = now - g->last;
        if (!t_kill) {
            if (gap > g->longest_before)
                g->longest_before = gap;
        } else if (gap > g->longest_after) {
            g->longest_after = gap;
            g->longest_after_end = now;
        }
    }
    g->last = now;
}
