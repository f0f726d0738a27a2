/* The options of the load, and how it ends when something is wrong. Included by load.c alone. */

#include <getopt.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

enum { FAILED = 1, WRONG = 2, CLOSED = 3, SILENT = 4 };

static struct {
    const char *host;
    int port, connections, active, size, depth, sources, source, slices;
    bool churn, hold, wait, tls;
    double seconds, warmup, patience, rate;
    uint64_t messages;
    pid_t server;
} opt = {
    .host = "127.0.0.1", .connections = 1, .active = -1, .size = 1024, .depth = 1, .sources = 1,
    .slices = 1, .seconds = 1, .patience = 10,
};

static void die(int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(status);
}

static const struct option OPTIONS[] = {
    {"host", 1, 0, 'H'},     {"port", 1, 0, 'p'},      {"connections", 1, 0, 'c'},
    {"active", 1, 0, 'a'},   {"size", 1, 0, 's'},      {"depth", 1, 0, 'd'},
    {"churn", 0, 0, 'C'},    {"hold", 0, 0, 'h'},      {"wait", 0, 0, 'w'},
    {"seconds", 1, 0, 't'},  {"warmup", 1, 0, 'W'},    {"messages", 1, 0, 'm'},
    {"patience", 1, 0, 'P'}, {"server-pid", 1, 0, 'S'}, {"source", 1, 0, 'o'},
    {"sources", 1, 0, 'O'},  {"rate", 1, 0, 'r'},      {"tls", 0, 0, 'T'},
    {"slices", 1, 0, 'n'},   {"help", 0, 0, '?'},      {0, 0, 0, 0},
};

static const char USAGE[] =
    "usage: load --port N [--host 127.0.0.1] [--connections 1] [--active ALL] [--size 1024]\n"
    "            [--depth 1] [--churn] [--seconds 1] [--warmup 0] [--messages NO LIMIT]\n"
    "            [--rate, an open loop of so many messages a second on each connection] [--tls]\n"
    "            [--patience 10] [--server-pid PID, for its CPU clock] [--wait]\n"
    "            [--slices 1, each begun by a line on stdin but the first]\n"
    "            [--hold, open and echo once, then wait for a line on stdin]\n"
    "            [--source 0] [--sources 1]: from 127.0.0.(1 + source), so many addresses\n";

static void read_options(int argc, char **argv)
{
    for (int o; (o = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1;)
        switch (o) {
        case 'H': opt.host = optarg; break;
        case 'p': opt.port = atoi(optarg); break;
        case 'c': opt.connections = atoi(optarg); break;
        case 'a': opt.active = atoi(optarg); break;
        case 's': opt.size = atoi(optarg); break;
        case 'd': opt.depth = atoi(optarg); break;
        case 'C': opt.churn = true; break;
        case 'h': opt.hold = true; break;
        case 'w': opt.wait = true; break;
        case 't': opt.seconds = atof(optarg); break;
        case 'W': opt.warmup = atof(optarg); break;
        case 'm': opt.messages = strtoull(optarg, NULL, 10); break;
        case 'P': opt.patience = atof(optarg); break;
        case 'S': opt.server = atoi(optarg); break;
        case 'o': opt.source = atoi(optarg); break;
        case 'O': opt.sources = atoi(optarg); break;
        case 'r': opt.rate = atof(optarg); break;
        case 'n': opt.slices = atoi(optarg); break;
        case 'T': opt.tls = true; break;
        default: fputs(USAGE, stderr); exit(FAILED);
        }
    if (opt.active < 0)
        opt.active = opt.connections;
    if (optind < argc || opt.port <= 0 || opt.port > 65535 || opt.connections < 1 || opt.size < 1 ||
        opt.active > opt.connections || opt.depth < 1 || opt.sources < 1 || opt.seconds <= 0 ||
        opt.patience <= 0 || opt.rate < 0 || opt.slices < 1 ||
        (opt.churn && (opt.depth > 1 || opt.tls)) ||
        (opt.messages > 0 && (opt.rate > 0 || opt.slices > 1)) ||
        (opt.rate > 0 && (opt.churn || opt.depth > 1 || opt.slices > 1))) {
        fputs(USAGE, stderr);
        exit(FAILED);
    }
}
