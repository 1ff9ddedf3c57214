#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "tools/rebuild.h"

/* Given out, perhaps, and seen by nobody: far more than a cloud uses before it says so in the pool.
 */
#define PACK_STEP (1ull << 20)
#define INO_STEP  (1ull << 32)
#define FOUND     "lost+found"

/* ---- commands */

/* The command's own status if the state is intact. */
static int run(struct rebuild *r, uint32_t type, const ProtobufCMessage *body, uint64_t ino)
{
    Star__LogEntry e = STAR__LOG_ENTRY__INIT;
    Star__Time now = STAR__TIME__INIT;
    struct state_result result;
    uint8_t *packed = NULL;
    int rc = state_in_turn(r->state) ? 0 : state_begin(r->state);

    now.sec = time(NULL);
    e.type = type;
    e.now = &now;
    e.ino = ino;
    e.body.len = protobuf_c_message_get_packed_size(body);
    e.body.data = malloc(e.body.len + 1);
    if (rc == 0 && e.body.data != NULL) {
        protobuf_c_message_pack(body, e.body.data);
        packed = malloc(star__log_entry__get_packed_size(&e) + 1);
    }
    if (rc == 0 && packed == NULL)
        rc = -ENOMEM;
    if (rc == 0)
        rc = state_apply(r->state, ++r->count, packed, star__log_entry__pack(&e, packed), &result);
    if (rc == 0)
        rc = result.status;
    free(e.body.data);
    free(packed);
    if (rc == 0 && state_turn_full(r->state))
        rc = state_commit(r->state);
    return rc;
}

static int make(struct rebuild *r, uint32_t type, uint64_t parent, const char *name, uint32_t mode,
                uint64_t ino)
{
    Star__Make q = STAR__MAKE__INIT;
    Star__Cred cred = STAR__CRED__INIT;
    Star__Head head = STAR__HEAD__INIT;

    head.cred = &cred;
    q.head = &head;
    q.parent = parent;
    q.name = (ProtobufCBinaryData){.len = strlen(name), .data = (uint8_t *)name};
    q.mode = mode;
    return run(r, type, &q.base, ino);
}

static int move(struct rebuild *r, const char *from, uint64_t to_dir, const char *to)
{
    Star__Rename q = STAR__RENAME__INIT;
    Star__Cred cred = STAR__CRED__INIT;
    Star__Head head = STAR__HEAD__INIT;

    head.cred = &cred;
    q.head = &head;
    q.parent = STATE_ROOT_INO;
    q.name = (ProtobufCBinaryData){.len = strlen(from), .data = (uint8_t *)from};
    q.new_parent = to_dir;
    q.new_name = (ProtobufCBinaryData){.len = strlen(to), .data = (uint8_t *)to};
    return run(r, STAR__MSG_TYPE__RENAME, &q.base, 0);
}

/* ---- who was there is there no more */

struct gather {
    struct list list;
    int rc;
};

static bool see_session(void *arg, const struct state_session *s)
{
    struct gather *g = arg;
    uint64_t *row = list_add(&g->list);

    if (row == NULL) {
        g->rc = -ENOMEM;
        return false;
    }
    *row = s->id;
    return true;
}

static int end_sessions(struct rebuild *r)
{
    struct gather g = {.list = {.size = sizeof(uint64_t)}};
    Star__LogSession q = STAR__LOG_SESSION__INIT;
    int rc = state_sessions(r->state, see_session, &g);

    rc = rc < 0 ? rc : g.rc;
    for (size_t n = 0; rc == 0 && n < g.list.n; n++) {
        q.session = ((uint64_t *)g.list.rows)[n];
        rc = run(r, STAR__LOG_TYPE__LOG_SESSION_END, &q.base, 0);
    }
    free(g.list.rows);
    return rc;
}

static bool see_node(void *arg, const struct state_node *n)
{
    struct gather *g = arg;
    struct state_node *row = list_add(&g->list);

    if (row == NULL) {
        g->rc = -ENOMEM;
        return false;
    }
    *row = *n;
    return true;
}

/* Their names become free for nodes with new stores. */
static int give_nodes_up(struct rebuild *r)
{
    struct gather g = {.list = {.size = sizeof(struct state_node)}};
    int rc = state_nodes(r->state, see_node, &g);

    rc = rc < 0 ? rc : g.rc;
    for (size_t n = 0; rc == 0 && n < g.list.n; n++) {
        struct state_node *node = (struct state_node *)g.list.rows + n;
        Star__LogNode q = STAR__LOG_NODE__INIT;
        char name[64];
        if (strcmp(node->state, "gone") != 0) {
            printf("note node %s is given up: what was staged there after its last flush is not in "
                   "the pool\n",
                   node->name);
            r->nodes_lost++;
        }
        snprintf(name, sizeof(name), "%.40s.gone-%u", node->name, node->id);
        q.node = node->id;
        q.name = strstr(node->name, ".gone-") != NULL ? node->name : name;
        q.address = node->address;
        q.machine = node->machine;
        q.store = node->store;
        q.capacity = node->capacity;
        q.state = (char *)"gone";
        rc = run(r, STAR__LOG_TYPE__LOG_NODE, &q.base, 0);
    }
    free(g.list.rows);
    return rc;
}

int rebuild_begin(struct rebuild *r)
{
    r->count = state_applied(r->state);
    r->meta_time = (int64_t)(state_last_time_ns(r->state) / 1000000000u);
    r->meta_last_ino = state_last_ino(r->state);
    return rebuild_read(r);
}

/* ---- packs, moves */

static int tell_packs(struct rebuild *r)
{
    Star__Rebuild q = STAR__REBUILD__INIT;
    Star__ConfirmPack *one = r->fresh.rows;
    int rc = 0;

    for (size_t n = 0; rc == 0 && n < r->fresh.n; n++, one++) {
        q.packs = &one;
        q.n_packs = 1;
        rc = run(r, STAR__LOG_TYPE__LOG_REBUILD, &q.base, 0);
    }
    return rc;
}

/* Any copy of a record is as good as another: the first one found is taken, once. */
static int tell_moves(struct rebuild *r)
{
    Star__Rebuild q = STAR__REBUILD__INIT;
    Star__MovedRecord m = STAR__MOVED_RECORD__INIT, *one = &m;
    int rc = 0;

    q.moved = &one;
    q.n_moved = 1;
    for (size_t n = 0; rc == 0 && n < r->pieces.n; n++) {
        const struct piece *p = (const struct piece *)r->pieces.rows + n;
        if (!p->moved)
            continue;
        m.record = p->record;
        m.pack = p->pack;
        m.number = p->number;
        m.pack_offset = p->pack_offset;
        rc = run(r, STAR__LOG_TYPE__LOG_REBUILD, &q.base, 0);
        rc = rc == -EINVAL ? 0 : rc; /* it lies there already */
    }
    return rc;
}

/* ---- cuts */

static int by_cut(const void *a, const void *b)
{
    const struct piece *x = a, *y = b;

    if (x->ino != y->ino)
        return x->ino < y->ino ? -1 : 1;
    if (x->version != y->version)
        return x->version < y->version ? -1 : 1;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return (x->record > y->record) - (x->record < y->record);
}

static int by_said(const void *a, const void *b)
{
    const struct cut_said *x = a, *y = b;

    if (x->ino != y->ino)
        return x->ino < y->ino ? -1 : 1;
    if (x->version != y->version)
        return x->version < y->version ? -1 : 1;
    return (x->records < y->records) -
           (x->records > y->records); /* the one that knows how many first */
}

static const struct cut_said *said_of(const struct rebuild *r, const struct piece *p)
{
    const struct cut_said *cuts = r->cuts.rows;
    size_t low = 0, high = r->cuts.n;
    const struct cut_said key = {.ino = p->ino, .version = p->version, .records = UINT32_MAX};

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (by_said(&cuts[middle], &key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < r->cuts.n && cuts[low].ino == p->ino && cuts[low].version == p->version
               ? &cuts[low]
               : NULL;
}

static int take(struct rebuild *r, const struct cut_said *c, const struct piece *p, size_t n)
{
    Star__Rebuild q = STAR__REBUILD__INIT;
    Star__CutFile f = STAR__CUT_FILE__INIT, *files = &f;
    Star__HomeAttrs attrs = STAR__HOME_ATTRS__INIT;
    Star__Time mtime = STAR__TIME__INIT;
    Star__CutRecord *records = calloc(n, sizeof(*records)), **list = calloc(n, sizeof(*list));
    int rc = records == NULL || list == NULL ? -ENOMEM : 0;

    for (size_t k = 0; rc == 0 && k < n; k++) {
        star__cut_record__init(&records[k]);
        records[k].offset = p[k].offset;
        records[k].length = p[k].length;
        records[k].number = p[k].number;
        records[k].pack = p[k].pack;
        records[k].pack_offset = p[k].pack_offset;
        records[k].record = p[k].moved ? p[k].record : 0;
        list[k] = &records[k];
    }
    mtime.sec = c->mtime;
    mtime.nsec = c->mtime_ns;
    attrs.ino = c->ino;
    attrs.size = c->size;
    attrs.version = c->version;
    attrs.mtime = &mtime;
    f.attrs = &attrs;
    f.cut = c->cut;
    f.base_limit = c->base_limit;
    f.records = list;
    f.n_records = n;
    q.cuts = &files;
    q.n_cuts = 1;
    if (rc == 0)
        rc = run(r, STAR__LOG_TYPE__LOG_REBUILD, &q.base, 0);
    free(records);
    free(list);
    return rc;
}

static size_t different(const struct piece *p, size_t n, bool *moved)
{
    size_t count = 0;

    for (size_t k = 0; k < n; k++) {
        count += k == 0 || p[k].offset != p[k - 1].offset;
        *moved |= p[k].moved;
    }
    return count;
}

/* Pieces p[0..n) are what there is of one cut. */
static int one_cut(struct rebuild *r, const struct piece *p, size_t n, struct list *found)
{
    const struct cut_said *c = said_of(r, p);
    char name[48];
    struct inode i;
    bool moved = false;
    int rc = state_inode(r->state, p->ino, &i);

    if (rc == -ESTALE && p->ino <= r->meta_last_ino)
        return 0; /* deleted before the copy was made */
    if (rc < 0 && rc != -ESTALE)
        return rc;
    if (rc == 0 && (!S_ISREG(i.mode) || i.cut_version >= p->version))
        return 0;
    if (c == NULL || (different(p, n, &moved) < (c->records ? c->records : SIZE_MAX) && !moved)) {
        r->cuts_partial++;
        return 0;
    }
    if (rc == -ESTALE) {
        uint64_t *row = list_add(found);
        snprintf(name, sizeof(name), ".umbel-found-%ju", (uintmax_t)p->ino);
        rc = row == NULL
                 ? -ENOMEM
                 : make(r, STAR__MSG_TYPE__CREATE, STATE_ROOT_INO, name, S_IFREG | 0600, p->ino);
        if (rc == 0)
            *row = p->ino;
    }
    if (rc == 0)
        rc = take(r, c, p, n);
    r->cuts_taken += rc == 0;
    return rc;
}

/* Numbers only grow, so the folder comes after what goes into it. */
static int put_found(struct rebuild *r, const struct list *found)
{
    struct inode dir;
    char from[48], to[24];
    int rc = state_lookup(r->state, STATE_ROOT_INO, FOUND, strlen(FOUND), &dir);

    if (rc == -ENOENT && found->n > 0) {
        dir.ino = state_last_ino(r->state) + 1;
        rc = make(r, STAR__MSG_TYPE__MKDIR, STATE_ROOT_INO, FOUND, S_IFDIR | 0700, dir.ino);
    }
    for (size_t n = 0; rc == 0 && n < found->n; n++) {
        uint64_t ino = ((uint64_t *)found->rows)[n];
        snprintf(from, sizeof(from), ".umbel-found-%ju", (uintmax_t)ino);
        snprintf(to, sizeof(to), "%ju", (uintmax_t)ino);
        rc = move(r, from, dir.ino, to);
    }
    r->files_found = found->n;
    return rc == -ENOENT ? 0 : rc;
}

static int tell_cuts(struct rebuild *r)
{
    struct list found = {.size = sizeof(uint64_t)};
    struct piece *p = r->pieces.rows;
    int rc = 0;

    if (r->pieces.n > 0)
        qsort(p, r->pieces.n, sizeof(*p), by_cut);
    if (r->cuts.n > 0)
        qsort(r->cuts.rows, r->cuts.n, sizeof(struct cut_said), by_said);
    for (size_t at = 0, end; rc == 0 && at < r->pieces.n; at = end) {
        for (end = at;
             end < r->pieces.n && p[end].ino == p[at].ino && p[end].version == p[at].version;)
            end++;
        rc = one_cut(r, p + at, end - at, &found);
    }
    if (rc == 0)
        rc = put_found(r, &found);
    free(found.rows);
    return rc;
}

int rebuild_apply(struct rebuild *r)
{
    int rc = tell_packs(r);

    if (rc == 0)
        rc = tell_moves(r);
    return rc < 0 ? rc : tell_cuts(r);
}

/* ---- the end */

static bool is_there(const struct rebuild *r, uint64_t pack)
{
    const uint64_t *packs = r->packs.rows;
    size_t low = 0, high = r->packs.n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (packs[middle] < pack)
            low = middle + 1;
        else
            high = middle;
    }
    return low < r->packs.n && packs[low] == pack;
}

struct missing {
    struct rebuild *r;
    struct list packs; /* uint64_t */
    uint64_t records;
    bool hurt;
    int rc;
};

static bool see_missing(void *arg, const struct state_pack *p)
{
    struct missing *m = arg;
    uint64_t *row;

    if (is_there(m->r, p->id))
        return true;
    row = list_add(&m->packs);
    if (row == NULL) {
        m->rc = -ENOMEM;
        return false;
    }
    *row = p->id;
    m->records += p->live_records;
    return true;
}

static bool see_extent(void *arg, const Star__Extent *e)
{
    struct missing *m = arg;

    m->hurt = !is_there(m->r, e->pack);
    return !m->hurt;
}

static bool see_file(void *arg, const struct inode *i)
{
    struct missing *m = arg;
    char path[4200];

    m->hurt = false;
    if (!S_ISREG(i->mode) || i->mapped == 0)
        return true;
    m->rc = state_map(m->r->state, i->ino, 0, UINT64_MAX, see_extent, m);
    if (m->rc == 0 && m->hurt) {
        state_path(m->r->state, i->ino, path, sizeof(path));
        printf("damaged %s\n", path);
        m->r->files_damaged++;
    }
    return m->rc == 0;
}

int rebuild_end(struct rebuild *r)
{
    struct missing m = {.r = r, .packs = {.size = sizeof(uint64_t)}};
    Star__Rebuild q = STAR__REBUILD__INIT;
    /* After the cuts: a home that is given up leaves a version that nothing is newer than. */
    int rc = end_sessions(r);

    if (rc == 0)
        rc = give_nodes_up(r);
    if (rc == 0)
        rc = state_packs(r->state, 0, see_missing, &m);
    if (rc == 0)
        rc = m.rc;
    if (rc == 0 && m.records > 0)
        rc = state_inodes(r->state, 0, see_file, &m);
    if (rc == 0)
        rc = m.rc;
    q.lost = m.packs.rows;
    q.n_lost = m.packs.n;
    q.last_pack =
        (r->last_pack > state_last_pack(r->state) ? r->last_pack : state_last_pack(r->state)) +
        PACK_STEP;
    q.last_ino = (r->last_ino > state_last_ino(r->state) ? r->last_ino : state_last_ino(r->state)) +
                 INO_STEP;
    q.fence = true;
    if (rc == 0)
        rc = run(r, STAR__LOG_TYPE__LOG_REBUILD, &q.base, 0);
    if (rc == 0 && !state_in_turn(r->state))
        rc = state_begin(r->state);
    if (rc == 0)
        state_begin_log(r->state);
    if (rc == 0)
        rc = state_commit(r->state);
    free(m.packs.rows);
    return rc;
}
