/* Sizes, nearest words, flat-keyed texts and umbel.conf, as the command line reads them. */
#include <criterion/criterion.h>

#include "control/wire/words.h"
#include "tools/conf.c"
#include "tools/text.c"

Test(text, sizes)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        {"0", 0},           {"512", 512},           {"64k", 65536},     {"128M", 128ull << 20},
        {"1G", 1ull << 30}, {"10GiB", 10ull << 30}, {"2T", 2ull << 40}, {"5B", 5},
        {"1kB", 1024},      {"15P", 15ull << 50},   {"1m", 1ull << 20},
    };
    static const char *const bad[] = {"",    "k",  "-1", "1X",   "1.5G",
                                      "1GG", "G1", " 1", "0x10", "1 k"};
    uint64_t n;

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        cr_assert_eq(text_parse_size(good[i].text, &n), 0, "%s", good[i].text);
        cr_assert_eq(n, good[i].bytes, "%s", good[i].text);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_assert_eq(text_parse_size(bad[i], &n), -EINVAL, "%s", bad[i]);
    cr_assert_eq(text_parse_size("99999999999999999999", &n), -ERANGE);
    cr_assert_eq(text_parse_size("16384P", &n), -ERANGE);
}

Test(text, numbers)
{
    uint64_t n = 7;

    cr_assert_eq(text_parse_number("64", 1, 64, &n), 0);
    cr_assert_eq(n, 64);
    cr_assert_eq(text_parse_number("65", 1, 64, &n), -ERANGE);
    cr_assert_eq(text_parse_number("0", 1, 64, &n), -ERANGE);
    cr_assert_eq(text_parse_number("1x", 1, 64, &n), -EINVAL);
    cr_assert_eq(text_parse_number("-1", 0, 64, &n), -EINVAL);
    cr_assert_eq(text_parse_number("18446744073709551616", 0, UINT64_MAX, &n), -ERANGE);
}

Test(text, distance)
{
    char longest[4096];

    cr_assert_eq(words_distance("status", "status"), 0);
    cr_assert_eq(words_distance("stauts", "status"), 1, "neighbours swapped count once");
    cr_assert_eq(words_distance("", "abc"), 3);
    cr_assert_eq(words_distance("kitten", "sitting"), 3);
    memset(longest, 'x', sizeof(longest));
    longest[sizeof(longest) - 1] = '\0';
    cr_assert_eq(words_distance(longest, "x"), WORDS_MAX - 1, "long words are cut, not overrun");
}

Test(text, values)
{
    const char *text = "a 1\nab = two words \n\nb\t3\nempty \nlast 9";
    char value[32];

    cr_assert(text_value(text, "a", value, sizeof(value)) && strcmp(value, "1") == 0);
    cr_assert(text_value(text, "ab", value, sizeof(value)) && strcmp(value, "two words") == 0);
    cr_assert(text_value(text, "b", value, sizeof(value)) && strcmp(value, "3") == 0);
    cr_assert(text_value(text, "last", value, sizeof(value)) && strcmp(value, "9") == 0);
    cr_assert(text_value(text, "empty", value, sizeof(value)) && strcmp(value, "") == 0);
    cr_assert(!text_value(text, "las", value, sizeof(value)));
    cr_assert(!text_value("", "a", value, sizeof(value)));
}

static int read_text(const char *text, struct conf *c, char *detail)
{
    char path[] = "/tmp/conf-XXXXXX";
    int fd = mkstemp(path);

    cr_assert(fd >= 0 && text_write_all(fd, text, strlen(text)) == 0);
    close(fd);
    int rc = conf_read(path, c, detail);
    unlink(path);
    return rc;
}

#define WHOLE                                                                                      \
    "# a comment\nformat = 1\n cloud=abc\npool = dir:/p\nnodes = 2\ncontrols = 1\ncapacity = "     \
    "1073741824\nseal = on\n"

Test(conf, reading)
{
    char detail[CONF_DETAIL];
    struct conf c;

    cr_assert_eq(read_text(WHOLE, &c, detail), 0, "%s", detail);
    cr_assert_str_eq(c.cloud, "abc");
    cr_assert_str_eq(c.pool, "dir:/p");
    cr_assert_eq(c.nodes, 2);
    cr_assert_eq(c.capacity, 1u << 30);
    cr_assert(c.seal);
    cr_assert_eq(read_text(WHOLE "seal = maybe\n", &c, detail), -EINVAL);
    cr_assert_eq(read_text("format = 2\nwhatever that means\n", &c, detail), -EPROTONOSUPPORT);
    cr_assert_eq(read_text("", &c, detail), -EINVAL);
    cr_assert_eq(read_text("format = 1\nnodes = 2\n", &c, detail), -EINVAL);
    cr_assert(strstr(detail, "missing") != NULL);
    cr_assert_eq(read_text(WHOLE "noeds = 3\n", &c, detail), -EINVAL);
    cr_assert(strstr(detail, "line 9") != NULL && strstr(detail, "'nodes'") != NULL, "%s", detail);
    cr_assert_eq(read_text(WHOLE "nodes = 0\n", &c, detail), -EINVAL);
    cr_assert_eq(read_text(WHOLE "nodes\n", &c, detail), -EINVAL);
    cr_assert_eq(conf_read("/nowhere/at/all", &c, detail), -ENOENT);
}

Test(conf, written_and_read_again)
{
    struct conf c = {.nodes = 3, .controls = 1, .capacity = 5ull << 30}, again;
    char detail[CONF_DETAIL] = "", folder[] = "/tmp/conf-XXXXXX", path[64];

    cr_assert_eq(conf_new_cloud(c.cloud), 0);
    cr_assert_eq(strlen(c.cloud), 36);
    strcpy(c.pool, "dir:/some where/else");
    cr_assert_not_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/umbel.conf", folder);
    cr_assert_eq(conf_write(path, &c, detail), 0, "%s", detail);
    cr_assert_eq(conf_read(path, &again, detail), 0, "%s", detail);
    cr_assert_str_eq(c.cloud, again.cloud);
    cr_assert_str_eq(c.pool, again.pool);
    cr_assert_eq(again.nodes, 3);
    cr_assert_eq(again.capacity, 5ull << 30);
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(rmdir(folder), 0, "a temporary file was left");
}
