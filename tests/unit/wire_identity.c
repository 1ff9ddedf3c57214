/* Names in certificates, addresses, tokens, and the folders that identities live in. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/wire/address.h"
#include "control/wire/authority.h"

static char folder[64];

static void begin(void)
{
    strcpy(folder, "/tmp/umbel-identity-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
}

static void end(void)
{
    char command[96];
    snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    cr_assert_eq(system(command), 0);
}

TestSuite(wire_identity, .init = begin, .fini = end);

/* ---- text */

Test(wire_identity, names)
{
    struct identity_name who;
    char back[IDENTITY_TEXT];
    static const char *const good[] = {
        "umbel://c0ffee-1/node/node-2",
        "umbel://c/control/control-1",
        "umbel://c/mount/laptop_7.x",
        "umbel://c/mount/m?all_squash=1000:1001",
        "umbel://c/mount/m?root_squash=65534:65534",
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        cr_assert_eq(identity_parse(good[i], &who), 0, "%s", good[i]);
        cr_assert_eq(identity_format(&who, back), 0);
        cr_assert_str_eq(back, good[i]);
    }
    cr_assert_eq(identity_parse("umbel://c/mount/m?all_squash=1000:1001", &who), 0);
    cr_assert(who.squash == SQUASH_ALL && who.uid == 1000 && who.gid == 1001);
    static const char *const bad[] = {
        "",
        "umbel:/",
        "umbel://",
        "umbel://c/node/",
        "umbel://c//node-1",
        "umbel:///node/node-1",
        "umbel://c/admin/x",
        "umbel://c/none/x",
        "umbel://c/node/a/b",
        "umbel://c/node/a b",
        "umbel://c/node/..",
        "umbel://c/node/-x",
        "umbel://c/node/n?all_squash=1:1", /* only mounts have users */
        "umbel://c/mount/m?",
        "umbel://c/mount/m?none",
        "umbel://c/mount/m?all_squash",
        "umbel://c/mount/m?all_squash=1",
        "umbel://c/mount/m?all_squash=1:2:3",
        "umbel://c/mount/m?all_squash=01:2",
        "umbel://c/mount/m?all_squash=-1:2",
        "umbel://c/mount/m?all_squash=4294967295:2",
        "umbel://c/mount/m?all_squash=4294967296:2",
        "umbel://c/mount/m?root_squash",
        "umbel://c/mount/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "umbel://cccccccccccccccccccccccccccccccccccccccc/mount/m",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_assert_eq(identity_parse(bad[i], &who), -EINVAL, "%s", bad[i]);
    cr_assert_eq(identity_squash_parse("root_squash", &who), 0);
    cr_assert(who.squash == SQUASH_ROOT && who.uid == 65534 && who.gid == 65534);
    cr_assert_eq(identity_squash_parse("none", &who), 0);
    cr_assert_eq(who.squash, SQUASH_NONE);
}

Test(wire_identity, addresses)
{
    struct address_tcp a;
    cr_assert_eq(address_parse_tcp("tcp:10.0.0.1:7000", &a), 0);
    cr_assert_str_eq(a.host, "10.0.0.1");
    cr_assert_str_eq(a.port, "7000");
    cr_assert_eq(address_parse_tcp("tcp:[fd00::1]:1/node/node-2", &a), 0);
    cr_assert(a.v6);
    cr_assert_str_eq(a.host, "fd00::1");
    cr_assert_str_eq(a.peer, "node/node-2");
    cr_assert_eq(address_check("tcp:centre.example.org:65535"), 0);
    cr_assert_eq(address_check("tcp:a-b:0"), 0);
    static const char *const bad[] = {
        "tcp:",
        "tcp:1",
        "tcp::1",
        "tcp:host",
        "tcp:host:",
        "tcp:host:65536",
        "tcp:host:-1",
        "tcp:host:01",
        "tcp:host: 1",
        "tcp:host:1 ",
        "tcp:host:http",
        "tcp:ho st:1",
        "tcp:-host:1",
        "tcp:host-:1",
        "tcp:host.:1",
        "tcp:.host:1",
        "tcp:a..b:1",
        "tcp:1:1", /* getaddrinfo would take it for 0.0.0.1 */
        "tcp:1.2.3:1",
        "tcp:1.2.3.256:1",
        "tcp:fd00::1:1",
        "tcp:[fd00::1:1",
        "tcp:[fd00::1]1",
        "tcp:[host]:1",
        "tcp:[]:1",
        "tcp:[fe80::1%eth0]:1",
        "tcp:host:1/",
        "tcp:host:1/node",
        "tcp:host:1/node/",
        "tcp:host:1/admin/x",
        "tcp:host:1/node/a/b",
        "tcp:host:1/node/a b",
        "tcp:host:1/node/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "tcp://host:1",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_assert_eq(address_check(bad[i]), -EINVAL, "%s", bad[i]);
    cr_assert_eq(address_connect("tcp:127.0.0.1:0"), -EINVAL);
    char longer[600];
    memset(longer, 'a', sizeof(longer));
    memcpy(longer, "tcp:", 4);
    strcpy(longer + sizeof(longer) - 3, ":1");
    cr_assert_eq(address_check(longer), -EINVAL);
}

Test(wire_identity, address_of_several)
{
    char out[64];
    static const char both[] = "tcp:10.0.0.1:1 unix:/run/n.sock tcp:10.0.0.2:1";
    cr_assert_eq(address_choose(both, true, out, sizeof(out)), 0);
    cr_assert_str_eq(out, "unix:/run/n.sock");
    cr_assert_eq(address_choose(both, false, out, sizeof(out)), 0);
    cr_assert_str_eq(out, "tcp:10.0.0.1:1");
    cr_assert_eq(address_choose("tcp:10.0.0.1:1", true, out, sizeof(out)), 0);
    cr_assert_eq(address_choose("unix:/x", false, out, sizeof(out)), -ENOENT);
    cr_assert_eq(address_choose("", true, out, sizeof(out)), -ENOENT);
    cr_assert_eq(address_choose("unix:/run/n.sock", true, out, 5), -ENAMETOOLONG);
}

/* ---- folders */

static struct authority *authority_of(const char *cloud)
{
    char dir[128], detail[IDENTITY_DETAIL];
    struct authority *a;
    snprintf(dir, sizeof(dir), "%s/%s", folder, cloud);
    mkdir(dir, 0700);
    cr_assert_eq(authority_create(dir, cloud, detail), 0, "%s", detail);
    cr_assert_eq(authority_open(dir, cloud, &a, detail), 0, "%s", detail);
    return a;
}

static const struct identity_name a_node = {.role = IDENTITY_NODE, .name = "node-1"};

static void issue(struct authority *a, char dir[128], const struct authority_times *times)
{
    char detail[IDENTITY_DETAIL];
    snprintf(dir, 128, "%s/id", folder);
    cr_assert_eq(authority_issue(a, dir, &a_node, times, detail), 0, "%s", detail);
}

static void expect_load(const char *dir, const char *cloud, int err, const char *words)
{
    char detail[IDENTITY_DETAIL];
    struct identity *id = NULL;
    cr_assert_eq(identity_load(dir, cloud, &id, detail), err, "%s", detail);
    if (!err) {
        cr_assert_str_eq(identity_self(id)->name, "node-1");
        cr_assert_eq(identity_self(id)->role, IDENTITY_NODE);
    } else {
        cr_assert_not_null(strstr(detail, words), "%s", detail);
    }
    identity_free(id);
}

Test(wire_identity, loading)
{
    char dir[128], path[160], other[160], detail[IDENTITY_DETAIL];
    struct authority *a = authority_of("cloud-a"), *b = authority_of("cloud-b");
    struct authority *again;
    issue(a, dir, NULL);
    expect_load(dir, NULL, 0, "");
    expect_load(dir, "cloud-a", 0, "");
    expect_load(dir, "cloud-b", -EXDEV, "not of cloud-b");
    snprintf(path, sizeof(path), "%s/self.key", dir);
    struct stat st;
    cr_assert(stat(path, &st) == 0 && (st.st_mode & 077) == 0);
    chmod(path, 0640);
    expect_load(dir, NULL, -EPERM, "may be read by others");
    chmod(path, 0600);
    cr_assert_eq(truncate(path, 40), 0);
    expect_load(dir, NULL, -EKEYREJECTED, "damaged");
    unlink(path);
    expect_load(dir, NULL, -ENOENT, "self.key");

    /* A key that is another's; a certificate that is another authority's. */
    issue(a, dir, NULL);
    snprintf(other, sizeof(other), "%s/cloud-a/ca.key", folder);
    unlink(path);
    cr_assert_eq(link(other, path), 0);
    expect_load(dir, NULL, -EKEYREJECTED, "does not fit");
    unlink(path);
    issue(a, dir, NULL);
    snprintf(path, sizeof(path), "%s/ca.crt", dir);
    snprintf(other, sizeof(other), "%s/cloud-b/ca.crt", folder);
    unlink(path);
    cr_assert_eq(link(other, path), 0);
    expect_load(dir, NULL, -EKEYREJECTED, "not of this authority");
    unlink(path);

    struct authority_times past = {-10 * 86400, -86400}, nearly = {-86400, -3000};
    issue(a, dir, &past);
    expect_load(dir, NULL, -EKEYEXPIRED, "expired");
    issue(a, dir, &nearly);
    expect_load(dir, NULL, 0, "");

    /* The authority: made once, private, of one cloud. */
    snprintf(path, sizeof(path), "%s/cloud-a", folder);
    cr_assert_eq(authority_create(path, "cloud-a", detail), 0);
    cr_assert_eq(authority_open(path, "cloud-b", &again, detail), -EXDEV);
    snprintf(other, sizeof(other), "%s/cloud-a/ca.key", folder);
    chmod(other, 0644);
    cr_assert_eq(authority_open(path, "cloud-a", &again, detail), -EPERM, "%s", detail);
    unlink(other);
    cr_assert_eq(authority_open(path, "cloud-a", &again, detail), -ENOENT, "%s", detail);
    authority_close(a);
    authority_close(b);
}

/* A machine that has nothing gets an identity, by a request. */
Test(wire_identity, joining)
{
    char dir[128], detail[IDENTITY_DETAIL];
    uint8_t request[AUTHORITY_DER_MAX], cert[AUTHORITY_DER_MAX], ca[AUTHORITY_DER_MAX];
    struct authority *a = authority_of("cloud-a");
    snprintf(dir, sizeof(dir), "%s/joined", folder);
    int n = identity_request(dir, request, detail);
    cr_assert_gt(n, 0, "%s", detail);
    int cert_n = authority_sign(a, request, (size_t)n, &a_node, NULL, cert, detail);
    cr_assert_gt(cert_n, 0, "%s", detail);
    int ca_n = authority_certificate(a, ca);
    cr_assert_gt(ca_n, 0);
    cr_assert_eq(identity_install(dir, cert, (size_t)cert_n - 1, ca, (size_t)ca_n, detail),
                 -EPROTO);
    cr_assert_eq(identity_install(dir, cert, (size_t)cert_n, ca, (size_t)ca_n, detail), 0);
    expect_load(dir, "cloud-a", 0, "");
    /* Every changed byte makes the signature wrong, or is no request at all. */
    for (int i = 0; i < n; i++) {
        request[i] ^= 1;
        cr_assert_eq(authority_sign(a, request, (size_t)n, &a_node, NULL, cert, detail), -EINVAL,
                     "byte %d", i);
        request[i] ^= 1;
    }
    for (int i = 0; i < n; i++)
        cr_assert_eq(authority_sign(a, request, (size_t)i, &a_node, NULL, cert, detail), -EINVAL);
    authority_close(a);
}

Test(wire_identity, tokens)
{
    struct authority *a = authority_of("cloud-a");
    struct token t, back;
    char text[TOKEN_TEXT];
    uint8_t one[TOKEN_HASH], two[TOKEN_HASH], fingerprint[32];
    cr_assert_eq(token_make(a, &t, text), 0);
    cr_assert_eq(strlen(text), TOKEN_TEXT - 1);
    cr_assert_eq(token_parse(text, &back), 0);
    cr_assert_arr_eq(back.secret, t.secret, TOKEN_SECRET);
    authority_fingerprint(a, fingerprint);
    cr_assert_arr_eq(back.fingerprint, fingerprint, 32);
    token_hash(t.secret, one);
    t.secret[0] ^= 1;
    token_hash(t.secret, two);
    cr_assert_arr_neq(one, two, TOKEN_HASH);
    for (size_t i = 0; i < TOKEN_TEXT - 1; i++) {
        char kept = text[i];
        text[i] = 'g';
        cr_assert_eq(token_parse(text, &back), -EINVAL);
        text[i] = '\0';
        cr_assert_eq(token_parse(text, &back), -EINVAL);
        text[i] = kept;
    }
    authority_close(a);
}
