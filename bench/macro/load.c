/* The load of bench.macro and bench.interference: one epoll thread, TCP_NODELAY, every byte checked.
   Run by measure.py, or by hand: load --port N [--seconds S]; --help lists the options.

   Connections are opened 64 at a time, and each has one message echoed. With --wait it then prints
   {"ready": N} and goes on when a line comes on stdin; at the end of stdin it leaves. Each of the
   first --active connections keeps --depth messages on their way: for each that has come back
   whole the next one is sent. With --churn a message has a connection of its own, which is closed
   by us when the echo is there; a latency then begins before the socket is made. After --warmup
   seconds the window opens; it closes after --seconds or --messages, with one message at least, and
   what is on its way then is still waited for and checked. With --slices the window is so many
   parts, each of which but the first waits for a line on stdin, has a warm-up of its own and is told
   with a line, so that others can be measured in between; the last line tells of all, and the
   connections stay open, so that nobody else is disturbed, until one more line or the end of stdin.

   With --rate the loop is open: each of the active connections sends so many messages a second, at
   times fixed beforehand, whatever has come back. A latency counts from the time a message was due,
   so a server that stands still is charged for all that it has kept waiting. The window then holds
   the messages that were due in it; those without an answer --patience seconds after its end are
   counted with the age they have by then, and told as "unanswered".

   A line of JSON on stdout. Exit status: 1 usage or system call, 2 a wrong byte, 3 the server
   closed or reset a connection, 4 no answer for --patience seconds. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "histogram.h"
#include "options.h"
#include "tls.h"

enum { BATCH = 64, EVENTS = 256, PERIOD = 8191, RECV_BYTES = 1 << 18 };

#define REWARM_SECONDS 0.004 /* of a slice: the caches are another server's */

struct conn {
    int fd;
    void *ssl;         /* NULL: plain TCP */
    uint32_t id;       /* says, with the number of the message, what its bytes are */
    bool connecting;   /* connect(2) is under way */
    bool blocked;      /* EPOLLOUT is asked for */
    uint64_t limit;    /* bytes that may be sent: messages allowed x size */
    uint64_t sent;
    uint64_t received;
    uint64_t *stamps;  /* ns at which message n was allowed, at n % depth; see due_ns() */
};

static int epfd, timer;
static struct conn *conns;
static char *pattern, inbox[RECV_BYTES];
static struct histogram hist;
static uint64_t done, outstanding; /* messages that came back; that are on their way */
static uint32_t opened;
static bool counting; /* the window is open */
static bool running; /* a message that has come back is followed by the next */
static uint64_t schedule_ns; /* open loop: when the first message was due; 0 before that */
static uint64_t window_ns, window_end_ns; /* open loop: whose messages count */

static uint64_t clock_ns(clockid_t id)
{
    struct timespec t;
    if (clock_gettime(id, &t) != 0)
        die(FAILED, "clock_gettime: %s (has the server ended?)", strerror(errno));
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

/* -- what is sent ------------------------------------------------------------------------------ */

static void make_pattern(void)
{
    uint64_t x = 88172645463325252u;
    pattern = malloc((size_t)PERIOD + (size_t)opt.size);
    if (pattern == NULL)
        die(FAILED, "no memory");
    for (int i = 0; i < PERIOD + opt.size; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        pattern[i] = (char)x;
    }
}

/* The bytes of message *n* of a connection: another's, or another message's, begin elsewhere. */
static const char *message(const struct conn *c, uint64_t n)
{
    return pattern + (c->id * 2654435761u + n * 97u) % PERIOD;
}

/* When message *n* of a connection was due. Of an open loop they are spread evenly, one connection
   after the other; message 0 is that of the set-up. */
static uint64_t due_ns(const struct conn *c, uint64_t n)
{
    if (schedule_ns == 0 || n == 0)
        return c->stamps[n % (uint64_t)opt.depth];
    double turn = (double)((n - 1) * (uint64_t)opt.active + (uint64_t)(c - conns));
    return schedule_ns + (uint64_t)(turn * 1e9 / (opt.rate * opt.active));
}

static void count(uint64_t due, uint64_t now)
{
    if (schedule_ns == 0 ? counting : due >= window_ns && due < window_end_ns)
        hist_add(&hist, now - due);
}

static void watch(struct conn *c, int op, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = c};
    if (epoll_ctl(epfd, op, c->fd, &ev) != 0)
        die(FAILED, "epoll_ctl: %s", strerror(errno));
}

static void set_blocked(struct conn *c, bool blocked)
{
    if (c->blocked != blocked)
        watch(c, EPOLL_CTL_MOD, blocked ? EPOLLIN | EPOLLOUT : EPOLLIN);
    c->blocked = blocked;
}

static void lost(const struct conn *c, const char *why)
{
    die(CLOSED, "connection %u, message %llu: %s", c->id,
        (unsigned long long)(c->received / (uint64_t)opt.size), why);
}

/* What pump() does, by way of TLS. What waits for bytes of the peer, a handshake, is gone on with by
   receive(). */
static void pump_tls(struct conn *c)
{
    uint64_t size = (uint64_t)opt.size;
    bool blocked = false;
    while (c->sent < c->limit) {
        uint64_t off = c->sent % size;
        const char *data = message(c, c->sent / size) + off;
        ssize_t n = tls_write(c->ssl, data, size - off, &blocked);
        if (n < 0 && errno == EAGAIN)
            break;
        if (n <= 0)
            lost(c, n == 0 ? "closed by the server" : strerror(errno));
        c->sent += (uint64_t)n;
    }
    set_blocked(c, blocked);
}

/* Send what may be sent: as many messages as one call takes. */
static void pump(struct conn *c)
{
    uint64_t size = (uint64_t)opt.size;
    if (c->ssl != NULL) {
        pump_tls(c);
        return;
    }
    while (c->sent < c->limit) {
        struct iovec iov[64];
        struct msghdr msg = {.msg_iov = iov};
        for (uint64_t at = c->sent; at < c->limit && msg.msg_iovlen < 64;) {
            uint64_t off = at % size;
            iov[msg.msg_iovlen++] = (struct iovec){(char *)message(c, at / size) + off, size - off};
            at += size - off;
        }
        ssize_t n = sendmsg(c->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            if (errno != EAGAIN)
                lost(c, strerror(errno));
            set_blocked(c, true);
            return;
        }
        c->sent += (uint64_t)n;
    }
    set_blocked(c, false);
}

static void allow(struct conn *c, uint64_t messages, uint64_t when)
{
    uint64_t first = c->limit / (uint64_t)opt.size;
    for (uint64_t i = 0; i < messages; i++)
        c->stamps[(first + i) % (uint64_t)opt.depth] = when;
    c->limit += messages * (uint64_t)opt.size;
    outstanding += messages;
}

/* -- connections ------------------------------------------------------------------------------- */

/* Take the next of the source addresses: each has its own 28,000 ports. */
static void bind_source(int fd, uint32_t n)
{
    struct sockaddr_in from = {.sin_family = AF_INET};
    int on = 1;
    from.sin_addr.s_addr = htonl(0x7f000001u + (uint32_t)opt.source + n % (uint32_t)opt.sources);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&from, sizeof from) != 0)
        die(FAILED, "bind: %s", strerror(errno));
}

/* Connect, and send one message as soon as that is done. */
static void open_conn(struct conn *c)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)opt.port)};
    int on = 1;
    uint64_t began = now_ns();
    c->id = opened++;
    c->sent = c->received = c->limit = 0;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        die(FAILED, "socket: %s (%u opened)", strerror(errno), c->id);
    if (opt.tls && (c->ssl = tls_over(c->fd)) == NULL)
        die(FAILED, "no memory");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (opt.source > 0 || opt.sources > 1)
        bind_source(c->fd, c->id);
    if (inet_pton(AF_INET, opt.host, &to.sin_addr) != 1)
        die(FAILED, "%s is no IPv4 address", opt.host);
    c->connecting = connect(c->fd, (struct sockaddr *)&to, sizeof to) != 0;
    if (c->connecting && errno != EINPROGRESS)
        die(errno == ECONNREFUSED ? CLOSED : FAILED, "connect: %s", strerror(errno));
    c->blocked = c->connecting;
    watch(c, EPOLL_CTL_ADD, c->connecting ? EPOLLIN | EPOLLOUT : EPOLLIN);
    allow(c, 1, began);
    if (!c->connecting)
        pump(c);
}

static void connected(struct conn *c)
{
    int code = 0;
    socklen_t len = sizeof code;
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &code, &len) != 0 || code != 0)
        die(CLOSED, "connect: %s", strerror(code ? code : errno));
    c->connecting = false;
    pump(c);
}

/* Compare *n* bytes that have come with what was sent; return how many messages are whole now. */
static uint64_t check(struct conn *c, ssize_t n, uint64_t now)
{
    uint64_t size = (uint64_t)opt.size, whole = 0;
    const char *at = inbox, *end = inbox + n;
    if (c->received + (uint64_t)n > c->sent)
        die(WRONG, "connection %u: %llu bytes came back of %llu sent", c->id,
            (unsigned long long)c->received + (unsigned long long)n, (unsigned long long)c->sent);
    while (at < end) {
        uint64_t which = c->received / size, off = c->received % size;
        uint64_t len = size - off < (uint64_t)(end - at) ? size - off : (uint64_t)(end - at);
        const char *want = message(c, which) + off;
        if (memcmp(at, want, len) != 0) {
            uint64_t i = 0;
            while (at[i] == want[i])
                i++;
            die(WRONG, "connection %u, message %llu, byte %llu: got 0x%02x, wanted 0x%02x", c->id,
                (unsigned long long)which, (unsigned long long)(off + i), (unsigned char)at[i],
                (unsigned char)want[i]);
        }
        at += len;
        c->received += len;
        if (c->received % size == 0) {
            count(due_ns(c, which), now);
            whole++;
        }
    }
    return whole;
}

static void receive(struct conn *c)
{
    bool blocked;
    ssize_t n = c->ssl != NULL ? tls_read(c->ssl, inbox, sizeof inbox, &blocked)
                               : recv(c->fd, inbox, sizeof inbox, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        if (c->ssl != NULL && c->sent < c->limit)
            pump(c); /* the handshake has got on */
        return;
    }
    if (n <= 0)
        lost(c, n == 0 ? "closed by the server" : strerror(errno));
    uint64_t now = now_ns(), whole = check(c, n, now);
    done += whole;
    outstanding -= whole;
    if (opt.churn && whole > 0) {
        close(c->fd);
        if (running)
            open_conn(c);
    } else if (running && whole > 0) {
        allow(c, whole, now);
        pump(c);
    }
}

/* Wait once and serve what is ready. */
static void turn(void)
{
    struct epoll_event events[EVENTS];
    int n = epoll_wait(epfd, events, EVENTS, (int)(opt.patience * 1000));
    if (n < 0 && errno != EINTR)
        die(FAILED, "epoll_wait: %s", strerror(errno));
    if (n == 0)
        die(SILENT, "no answer for %g s, %llu messages are on their way", opt.patience,
            (unsigned long long)outstanding);
    for (int i = 0; i < n; i++) {
        struct conn *c = events[i].data.ptr;
        uint64_t ticks;
        if (c == NULL) { /* the timer of an open loop */
            if (read(timer, &ticks, sizeof ticks) < 0 && errno != EAGAIN)
                die(FAILED, "read of a timerfd: %s", strerror(errno));
            continue;
        }
        if (c->connecting)
            connected(c);
        else if (events[i].events & EPOLLOUT)
            pump(c);
        if (events[i].events & ~(uint32_t)EPOLLOUT)
            receive(c);
    }
}

/* -- the course of it -------------------------------------------------------------------------- */

static void open_all(void)
{
    for (int i = 0; i < opt.connections; i += BATCH) {
        for (int k = i; k < i + BATCH && k < opt.connections; k++)
            open_conn(&conns[k]);
        while (outstanding > 0)
            turn();
    }
}

/* Say that what is said is all for now; return whether to go on. */
static bool told_to_go(void)
{
    char c = 0;
    fflush(stdout);
    while (read(STDIN_FILENO, &c, 1) == 1)
        if (c == '\n')
            return true;
    return false;
}

/* How often the server's first thread was preempted, which on a quiet machine nobody does. */
static unsigned long long preemptions(void)
{
    char path[64], line[256];
    unsigned long long count = 0;
    if (opt.server <= 0)
        return 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)opt.server);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        die(FAILED, "%s: %s (has the server ended?)", path, strerror(errno));
    while (fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "nonvoluntary_ctxt_switches: %llu", &count) == 1)
            break;
    fclose(file);
    return count;
}

/* The clocks and counters at one end of the window. */
struct reading {
    uint64_t now, server_ns, load_ns;
    unsigned long long preempted;
};

static struct reading take_reading(void)
{
    struct reading r = {.preempted = preemptions()};
    clockid_t server = CLOCK_MONOTONIC;
    if (opt.server > 0 && clock_getcpuclockid(opt.server, &server) != 0)
        die(FAILED, "no process %d", (int)opt.server);
    r.now = now_ns();
    r.server_ns = clock_ns(server);
    r.load_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    return r;
}

static void tell(const struct histogram *window, uint64_t messages, struct reading from,
                 struct reading to)
{
    printf("{\"messages\": %llu, \"seconds\": %.6f, ", (unsigned long long)messages,
           (double)(to.now - from.now) / 1e9);
    if (opt.server > 0)
        printf("\"server_cpu_seconds\": %.6f, \"preemptions\": %llu, ",
               (double)(to.server_ns - from.server_ns) / 1e9, to.preempted - from.preempted);
    if (opt.rate > 0)
        printf("\"unanswered\": %llu, ", (unsigned long long)(window->total - messages));
    printf("\"load_cpu_seconds\": %.6f, \"p50_us\": %.3f, \"p99_us\": %.3f, \"p99.9_us\": %.3f, "
           "\"max_us\": %.3f}\n",
           (double)(to.load_ns - from.load_ns) / 1e9, hist_quantile(window, 0.5) / 1e3,
           hist_quantile(window, 0.99) / 1e3, hist_quantile(window, 0.999) / 1e3,
           (double)window->most / 1e3);
}

/* Have each connection send, wait for *warmup* seconds, and measure for *seconds*; what is on its way
   then is waited for. Return how many messages came back in the window. */
static uint64_t measure_part(double warmup, double seconds, struct reading *from,
                             struct reading *to)
{
    running = true;
    for (int i = 0; i < opt.active; i++) {
        if (opt.churn) {
            open_conn(&conns[i]);
        } else {
            allow(&conns[i], (uint64_t)opt.depth, now_ns());
            pump(&conns[i]);
        }
    }
    for (uint64_t end = now_ns() + (uint64_t)(warmup * 1e9); now_ns() < end;)
        turn();
    *from = take_reading();
    counting = true;
    done = 0;
    uint64_t last = from->now + (uint64_t)(seconds * 1e9), now = from->now;
    while (done == 0 || (now < last && (opt.messages == 0 || done < opt.messages))) {
        turn();
        now = now_ns();
    }
    *to = take_reading();
    uint64_t messages = done;
    counting = false;
    for (running = false; outstanding > 0;)
        turn();
    return messages;
}

/* Measure all parts of the window; tell of each, if there are several, and of the whole. */
static void measure_closed(void)
{
    struct reading from, to, sum = {0};
    uint64_t messages = 0;
    for (int part = 0; part < opt.slices && (part == 0 || told_to_go()); part++) {
        double warmup = part == 0 ? opt.warmup : REWARM_SECONDS;
        uint64_t n = measure_part(warmup, opt.seconds / opt.slices, &from, &to);
        messages += n;
        sum.now += to.now - from.now;
        sum.server_ns += to.server_ns - from.server_ns;
        sum.load_ns += to.load_ns - from.load_ns;
        sum.preempted += to.preempted - from.preempted;
        if (opt.slices > 1)
            printf("{\"messages\": %llu, \"seconds\": %.6f}\n", (unsigned long long)n,
                   (double)(to.now - from.now) / 1e9);
    }
    tell(&hist, messages, (struct reading){0}, sum);
    if (opt.slices > 1)
        told_to_go();
}

/* Serve what comes until *end*, and send what is due up to then; without *sending* end with the last
   answer. *turns is how many messages were sent. */
static void keep_schedule(uint64_t end, uint64_t *turns, bool sending)
{
    for (;;) {
        uint64_t now = now_ns(), until = now < end ? now : end;
        for (; sending; ++*turns) {
            struct conn *c = &conns[*turns % (uint64_t)opt.active];
            if (due_ns(c, *turns / (uint64_t)opt.active + 1) > until)
                break;
            allow(c, 1, 0);
            if (!c->blocked)
                pump(c);
        }
        if (now >= end || (!sending && outstanding == 0))
            return;
        turn();
    }
}

static void measure_open(void)
{
    double interval_ns = 1e9 / (opt.rate * opt.active);
    struct itimerspec ticks = {.it_interval = {(time_t)(interval_ns / 1e9), 0}};
    ticks.it_interval.tv_nsec = (long)(interval_ns - (double)ticks.it_interval.tv_sec * 1e9);
    if (ticks.it_interval.tv_sec == 0 && ticks.it_interval.tv_nsec < 1000)
        ticks.it_interval.tv_nsec = 1000;
    ticks.it_value = ticks.it_interval;
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (timer < 0 || timerfd_settime(timer, 0, &ticks, NULL) != 0 ||
        epoll_ctl(epfd, EPOLL_CTL_ADD, timer, &ev) != 0)
        die(FAILED, "timerfd: %s", strerror(errno));
    uint64_t turns = 0;
    schedule_ns = now_ns() + (uint64_t)interval_ns;
    window_ns = schedule_ns + (uint64_t)(opt.warmup * 1e9);
    window_end_ns = window_ns + (uint64_t)(opt.seconds * 1e9);
    keep_schedule(window_ns, &turns, true);
    struct reading from = take_reading();
    keep_schedule(window_end_ns, &turns, true);
    struct reading to = take_reading();
    keep_schedule(window_end_ns + (uint64_t)(opt.patience * 1e9), &turns, false);
    if (hist.total == 0)
        die(SILENT, "no answer for %g s, %llu messages are on their way", opt.patience,
            (unsigned long long)outstanding);
    uint64_t messages = hist.total, size = (uint64_t)opt.size, now = now_ns();
    for (struct conn *c = conns; c < conns + opt.active; c++)
        for (uint64_t n = c->received / size; n < c->limit / size; n++)
            count(due_ns(c, n), now);
    tell(&hist, messages, from, to);
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    make_pattern();
    conns = calloc((size_t)opt.connections, sizeof *conns);
    uint64_t *stamps = calloc((size_t)opt.connections * (size_t)opt.depth, sizeof *stamps);
    epfd = epoll_create1(EPOLL_CLOEXEC);
    if (conns == NULL || stamps == NULL || epfd < 0)
        die(FAILED, "no memory or no descriptors");
    for (int i = 0; i < opt.connections; i++)
        conns[i].stamps = stamps + (size_t)i * (size_t)opt.depth;
    const char *missing = opt.tls ? tls_load() : NULL;
    if (missing != NULL)
        die(FAILED, "no TLS: %s", missing);
    if (!opt.churn)
        open_all();
    if (opt.hold || opt.wait)
        printf("{\"ready\": %d}\n", opt.churn ? 0 : opt.connections);
    if (opt.hold)
        told_to_go();
    else if (!opt.wait || told_to_go())
        (opt.rate > 0 ? measure_open : measure_closed)();
    return 0;
}
