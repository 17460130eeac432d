/* Documents: what words name, in which order; what is no text, each in its own words; and that a change is
 * seen. */

#include "tests/check.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/documents.h"
#include "client/files.h"

static char here[] = "/tmp/moothall-documents-XXXXXX";

static void put(const char *name, const void *data, size_t size)
{
    FILE *file = fopen(name, "w");

    CHECK(file && fwrite(data, 1, size, file) == size && fclose(file) == 0);
}

static void put_text(const char *name, const char *text)
{
    put(name, text, strlen(text));
}

static int enter(void **state)
{
    struct err err;

    (void)state;
    CHECK(chdir("/") == 0 && file_remove_tree(here, &err) && mkdir(here, 0700) == 0 && chdir(here) == 0);
    return 0;
}

static struct documents *list(const char *const *word, int count, const char *template)
{
    struct documents_config config = { .word = (char *const *)(uintptr_t)word,
                                       .word_count = count,
                                       .template = template };
    struct documents *documents;
    struct err err = { 0 };

    if (!documents_open(&documents, &config, &err)) {
        print_error("%s\n", err.text);
        CHECK(false);
    }
    return documents;
}

/* The names of all that one word lists, with '|' between. */
static void check_names(const char *word, const char *names)
{
    struct documents *d = list(&word, 1, NULL);
    struct buf all = { 0 };

    for (size_t i = 0; i < documents_count(d); i++)
        CHECK((i == 0 || buf_text(&all, "|")) && buf_text(&all, documents_name(d, i)));
    if (!span_equal(buf_span(&all), span_text(names)))
        print_error("%s: %.*s\n", word, (int)all.size, (const char *)all.data);
    CHECK(span_equal(buf_span(&all), span_text(names)));
    buf_fini(&all);
    documents_close(d);
}

static void check_no_list(const char *word, const char *template, enum err_code code, const char *words)
{
    struct documents_config config = { .word = (char *const *)(uintptr_t)&word,
                                       .word_count = 1,
                                       .template = template };
    struct documents *documents;
    struct err err = { 0 };

    CHECK(!documents_open(&documents, &config, &err));
    if (err.code != code || !strstr(err.text, words))
        print_error("%s: %s\n", word, err.text);
    CHECK(err.code == code && strstr(err.text, words));
}

/* The whole text, read by `size` bytes. */
static bool read_document(struct documents *d, size_t index, size_t size, struct buf *text, struct err *err)
{
    struct document *document;
    char bytes[4096];
    size_t got;
    bool ok;

    text->size = 0;
    memset(err, 0, sizeof *err);
    if (!document_open(&document, d, index, err))
        return false;
    do {
        ok = document_read(document, bytes, size, &got, err);
        CHECK(got <= size);
        CHECK(!ok || (span_is_utf8(span_of(bytes, got)) && buf_add(text, bytes, got)));
    } while (ok && got);
    document_close(document);
    return ok;
}

static void check_text(struct documents *d, size_t index, const char *text)
{
    struct buf buf = { 0 };
    struct err err;

    for (size_t size = 4; size < 4096; size = size * 3 + 1) {
        if (!read_document(d, index, size, &buf, &err))
            print_error("%s\n", err.text);
        CHECK(err.code == ERR_NONE);
        if (!span_equal(buf_span(&buf), span_text(text)))
            print_error("%.*s\n", (int)buf.size, (const char *)buf.data);
        CHECK(span_equal(buf_span(&buf), span_text(text)));
    }
    buf_fini(&buf);
}

static void check_failure(struct documents *d, size_t index, enum err_code code, const char *words)
{
    struct buf buf = { 0 };
    struct err err;

    CHECK(!read_document(d, index, 4096, &buf, &err));
    if (err.code != code || !strstr(err.text, words))
        print_error("%s: %s\nexpected %s\n", documents_name(d, index), err.text, words);
    CHECK(err.code == code && strstr(err.text, words));
    buf_fini(&buf);
}

static void test_the_order_of_names(void **state)
{
    (void)state;
    CHECK(mkdir("in", 0700) == 0 && mkdir("in/b", 0700) == 0 && mkdir("in/.git", 0700) == 0 &&
          mkdir("in/empty", 0700) == 0);
    put_text("in/a.txt", "a");
    put_text("in/b/z.md", "z");
    put_text("in/b/.hidden", "h");
    put_text("in/.git/config", "c");
    put_text("in/B.txt", "B");
    put_text("in/c[1].txt", "c");
    put_text("in/b.txt", "b");
    check_names("in", "in/B.txt|in/a.txt|in/b/z.md|in/b.txt|in/c[1].txt");
    check_names("in/", "in/B.txt|in/a.txt|in/b/z.md|in/b.txt|in/c[1].txt");
    check_names("in/b/.hidden", "in/b/.hidden"); /* named by its user */
    check_names("in/*.txt", "in/B.txt|in/a.txt|in/b.txt|in/c[1].txt");
    check_names("in/c[1].txt", "in/c[1].txt"); /* a name before a pattern */
    check_names("in/?.txt", "in/B.txt|in/a.txt|in/b.txt");
    check_names("*/[a-b]*", "in/a.txt|in/b/z.md|in/b.txt");
    check_names("in/**/*.md", "in/b/z.md");
    check_names("**/z.md", "in/b/z.md");
    check_names("in/**", "in/B.txt|in/a.txt|in/b/z.md|in/b.txt|in/c[1].txt");
    check_names("./in/b", "./in/b/z.md");
    check_no_list("nowhere.txt", NULL, ERR_NOT_FOUND, "there is no file or directory nowhere.txt");
    check_no_list("in/a.txt/x", NULL, ERR_NOT_FOUND, "there is no file");
    check_no_list("*.pdf", NULL, ERR_NOT_FOUND, "no file matches *.pdf");
    check_no_list("in/empty", NULL, ERR_NOT_FOUND, "there are no files in in/empty");
    check_no_list("", NULL, ERR_INPUT, "an empty word");
}

/* The same file by another name is one document; copies are two. */
static void test_a_file_named_twice_is_one(void **state)
{
    const char *words[] = { "a.txt", "d", "./a.txt", "*.txt", "a.txt", "d/../d" };
    struct documents *d;

    (void)state;
    CHECK(mkdir("d", 0700) == 0);
    put_text("a.txt", "same");
    put_text("b.txt", "same");
    CHECK(link("a.txt", "d/hard.txt") == 0 && symlink("../a.txt", "d/soft.txt") == 0);
    put_text("d/z.txt", "z");
    d = list(words, 6, NULL);
    CHECK(documents_count(d) == 3);
    CHECK(!strcmp(documents_name(d, 0), "a.txt") && !strcmp(documents_name(d, 1), "d/z.txt") &&
          !strcmp(documents_name(d, 2), "b.txt"));
    documents_close(d);
}

/* Links that lead back, and what is no file, end the walk for themselves only. */
static void test_loops_and_what_is_no_file(void **state)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "w/socket" };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    const char *word = "w", *fifo = "w/fifo";
    struct documents *d;

    (void)state;
    CHECK(mkdir("w", 0700) == 0 && symlink("..", "w/up") == 0 && symlink("loop", "w/loop") == 0 &&
          symlink("nothing", "w/dangling") == 0);
    CHECK(mkfifo("w/fifo", 0600) == 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    put_text("w/good.txt", "good");
    d = list(&word, 1, NULL);
    CHECK(documents_count(d) == 5);
    check_failure(d, 0, ERR_INPUT, "a link to nothing");
    check_failure(d, 1, ERR_INPUT, "a pipe, not a file");
    check_text(d, 2, "good");
    check_failure(d, 3, ERR_INPUT, "Too many levels of symbolic links");
    check_failure(d, 4, ERR_INPUT, "a socket, not a file");
    documents_close(d);
    d = list(&fifo, 1, NULL);
    check_failure(d, 0, ERR_INPUT, "a pipe, not a file (standard input is -)");
    documents_close(d);
    fifo = "/dev/zero";
    d = list(&fifo, 1, NULL);
    check_failure(d, 0, ERR_INPUT, "a device, not a file");
    documents_close(d);
    close(fd);
}

static void test_what_may_not_be_read(void **state)
{
    const char *word = "p";
    struct documents *d;
    bool root = geteuid() == 0;

    (void)state;
    CHECK(chmod(here, 0755) == 0 && mkdir("p", 0755) == 0 && mkdir("p/closed", 0700) == 0);
    put_text("p/a.txt", "a");
    put_text("p/b.txt", "b");
    CHECK(chmod("p/b.txt", 0) == 0 && chmod("p/closed", 0) == 0);
    if (root && seteuid(65534) != 0) { /* root may read everything */
        print_message("skipped: nobody else to be\n");
        skip();
    }
    d = list(&word, 1, NULL);
    CHECK(documents_count(d) == 3);
    check_text(d, 0, "a");
    check_failure(d, 1, ERR_IO, "Permission denied");
    check_failure(d, 2, ERR_INPUT, "the directory cannot be read: Permission denied");
    documents_close(d);
    CHECK(!root || seteuid(0) == 0);
    CHECK(chmod("p/closed", 0700) == 0);
}

/* Names of any bytes: the true file is opened, and two that look alike are two. */
static void test_names_of_any_bytes(void **state)
{
    const char *word = "n";
    struct documents *d;

    (void)state;
    CHECK(mkdir("n", 0700) == 0);
    put_text("n/a\nb.txt", "newline");
    put_text("n/x\xfe.txt", "first");
    put_text("n/x\xff.txt", "second");
    put_text("n/\xc3\xa9.txt", "accent");
    d = list(&word, 1, NULL);
    CHECK(documents_count(d) == 4);
    CHECK(!strcmp(documents_name(d, 0), "n/a\nb.txt"));
    CHECK(!strcmp(documents_name(d, 1), "n/x\xef\xbf\xbd.txt") &&
          !strcmp(documents_name(d, 2), documents_name(d, 1)));
    check_text(d, 1, "first");
    check_text(d, 2, "second");
    check_text(d, 3, "accent");
    documents_close(d);
}

static void test_what_is_no_text(void **state)
{
#define BYTES(text) text, sizeof text - 1
    static const struct {
        const char *bytes;
        size_t size;
        const char *words;
    } cases[] = {
        { BYTES(""), "empty" },
        { BYTES("\xef\xbb\xbf"), "empty" },
        { BYTES(" \n\t\xe3\x80\x80\r\n"), "nothing but white space" },
        { BYTES("\x7f"
                "ELF\2\1\1\0\0\0"),
          "it is a program" },
        { BYTES("%PDF-1.4\nplain so far"), "it is a PDF file (pdftotext" },
        { BYTES("PK\3\4\0\0\0\0word/document.xml"), "a ZIP archive" },
        { BYTES("some text\0and more of it, all of it plain"), "binary (a NUL byte at byte 9)" },
        { BYTES("\1\2\3\4\5\6\7\x0e\x0f"
                "abc"),
          "too many control characters" },
        { BYTES("\xff\xfeH\0e\0l\0l\0o\0 \0w\0o\0r\0l\0d\0"),
          "looks like UTF-16LE; convert it: iconv -f UTF-16LE -t UTF-8" },
        { BYTES("\xfe\xff\0H\0e\0l\0l\0o\0 \0w\0o\0r\0l\0d"), "iconv -f UTF-16BE -t UTF-8" },
        { BYTES("H\0e\0l\0l\0o\0 \0w\0o\0r\0l\0d\0 \0i\0t\0 \0i\0s\0"), "looks like UTF-16LE" },
        { BYTES("\0H\0e\0l\0l\0o\0 \0w\0o\0r\0l\0d\0 \0i\0t"), "looks like UTF-16BE" },
        { BYTES("\xff\xfe\0\0H\0\0\0i\0\0\0!\0\0\0"), "looks like UTF-32LE" },
        { BYTES("\0\0\xfe\xff\0\0\0H\0\0\0i"), "looks like UTF-32BE" },
        { BYTES("H\0\0\0i\0\0\0 \0\0\0y\0\0\0o\0\0\0u\0\0\0"), "looks like UTF-32LE" },
        /* "Der Straßenbauer hörte gründliche Erklärungen." */
        { BYTES("Der Stra\xdf"
                "enbauer h\xf6rte gr\xfcndliche Erkl\xe4rungen."),
          "not UTF-8 at byte 8: it looks like ISO-8859-1; convert it: iconv -f ISO-8859-1 -t UTF-8" },
        { BYTES("\x93"
                "caf\xe9\x94 \x80 5"),
          "looks like WINDOWS-1252" },
        /* "日本語のテキストです。" */
        { BYTES("\x93\xfa\x96\x7b\x8c\xea\x82\xcc\x83\x65\x83\x4c\x83\x58\x83\x67\x82\xc5\x82\xb7\x81\x42"),
          "looks like SHIFT_JIS" },
        { BYTES("\x1b$BF|K\\8l\x1b(B"), "looks like ISO-2022-JP" },
        { BYTES("\xc6\xfc\xcb\xdc\xb8\xec\xa4\xce\xa5\xc6\xa5\xad\xa5\xb9\xa5\xc8\xa4\xc7\xa4\xb9\xa1\xa3"),
          "looks like EUC-JP" },
        /* "人人生而自由，在尊严和权利上一律平等。" */
        { BYTES("\xc8\xcb\xc8\xcb\xc9\xfa\xb6\xf8\xd7\xd4\xd3\xc9\xa3\xac\xd4\xda\xd7\xf0\xd1\xcf\xba\xcd\xc8"
                "\xa8\xc0\xfb\xc9\xcf\xd2\xbb\xc2\xc9\xc6\xbd\xb5\xc8\xa1\xa3"),
          "looks like GB18030" },
        /* "모든 인간은 태어날 때부터 자유로우며" */
        { BYTES("\xb8\xf0\xb5\xe7 \xc0\xce\xb0\xa3\xc0\xba \xc5\xc2\xbe\xee\xb3\xaf \xb6\xa7\xba\xce\xc5\xcd "
                "\xc0\xda\xc0\xaf\xb7\xce\xbf\xec\xb8\xe7"),
          "looks like EUC-KR" },
        /* "Все люди рождаются свободными" */
        { BYTES("\xc2\xf1\xe5 \xeb\xfe\xe4\xe8 \xf0\xee\xe6\xe4\xe0\xfe\xf2\xf1\xff "
                "\xf1\xe2\xee\xe1\xee\xe4\xed\xfb\xec\xe8"),
          "looks like WINDOWS-1251" },
        { BYTES("\xf7\xd3\xc5 \xcc\xc0\xc4\xc9 \xd2\xcf\xd6\xc4\xc1\xc0\xd4\xd3\xd1 "
                "\xd3\xd7\xcf\xc2\xcf\xc4\xce\xd9\xcd\xc9"),
          "looks like KOI8-R" },
        /* "Όλοι οι άνθρωποι γεννιούνται", "Všichni lidé rodí se svobodní, příliš žluťoučký", "כל בני האדם
           נולדו" */
        { BYTES("\xbc\xeb\xef\xe9 \xef\xe9 \xdc\xed\xe8\xf1\xf9\xf0\xef\xe9 "
                "\xe3\xe5\xed\xed\xe9\xef\xfd\xed\xf4\xe1\xe9"),
          "looks like WINDOWS-1253" },
        { BYTES("V\x9aichni lid\xe9 rod\xed se svobodn\xed, p\xf8\xedli\x9a \x9elu\x9dou\xe8k\xfd"),
          "looks like WINDOWS-1250" },
        { BYTES("\xeb\xec \xe1\xf0\xe9 \xe4\xe0\xe3\xed \xf0\xe5\xec\xe3\xe5"), "looks like WINDOWS-1255" },
        /* "人人生而自由" in Big5 */
        { BYTES("\xa4\x48\xa4\x48\xa5\xcd\xa6\xd3\xa6\xdb\xa5\xd1\xa1\x41\xa6\x62\xb4\x4c\xc4\x59\xa9\x4d\xc5"
                "\x76\xa7\x51\xa4\x57"),
          "looks like BIG5" },
        { BYTES("caf\xc3\xa9 and \xe6\xbc\xa2 and one b\xe9"
                "d byte, \xc3\xa9"),
          "not UTF-8 at byte 23 (0xE9), though most of it is" },
        { BYTES("\xc3\xa9\xc3\xa9\xc3\xa9 cut \xe6\xbc"),
          "not UTF-8 at byte 11 (0xE6), though most of it is" },
        { BYTES("\xed\xa0\x80 surrogate"), "not UTF-8 at byte 0" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *word = "no text.txt";
        struct documents *d;

        put(word, cases[i].bytes, cases[i].size);
        d = list(&word, 1, NULL);
        CHECK(documents_count(d) == 1);
        check_failure(d, 0, ERR_INPUT, cases[i].words);
        documents_close(d);
    }
}

/* A fault far from the start is named by its byte, in whatever block it falls. */
static void test_a_fault_far_inside(void **state)
{
    static const size_t places[] = { 65533, 65534, 65535, 65536, 65537, 131071, 200000 };
    enum { SIZE = 300000 };
    char *text = malloc(SIZE);
    const char *word = "far.txt";

    (void)state;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        char words[80];
        struct documents *d;

        memset(text, 'a', SIZE);
        for (size_t k = 99; k < SIZE; k += 100)
            text[k] = '\n';
        text[places[i]] = '\xe9';
        put(word, text, SIZE);
        d = list(&word, 1, NULL);
        snprintf(words, sizeof words, "not UTF-8 at byte %zu: it looks like ISO-8859-1", places[i]);
        check_failure(d, 0, ERR_INPUT, words);
        documents_close(d);
    }
    free(text);
}

/* Characters across blocks, the byte order mark, CRLF: the bytes as they are. */
static void test_texts_come_as_they_are(void **state)
{
    const char *words[] = { "bom.txt", "wide.txt" };
    struct buf text = { 0 };
    struct documents *d;
    struct document *document;
    char bytes[16];
    uint8_t one[DOCUMENT_DIGEST_SIZE], two[DOCUMENT_DIGEST_SIZE];
    size_t got;
    struct err err;

    (void)state;
    put_text("bom.txt", "\xef\xbb\xbfone\r\ntwo\xef\xbb\xbf");
    while (text.size < 200000)
        CHECK(buf_text(&text, text.size % 7 ? "é漢😀" : "x"));
    CHECK(buf_add(&text, "", 1));
    put("wide.txt", text.data, text.size - 1);
    d = list(words, 2, NULL);
    check_text(d, 0, "one\r\ntwo\xef\xbb\xbf");
    check_text(d, 1, (char *)text.data);
    CHECK(document_open(&document, d, 0, &err) && document_read(document, bytes, 16, &got, &err));
    CHECK(document_bom(document) == 3 && !document_digest(document, one));
    CHECK(document_read(document, bytes, 16, &got, &err) && got == 0 && document_digest(document, one));
    document_close(document);
    CHECK(document_open(&document, d, 1, &err));
    do
        CHECK(document_read(document, bytes, 16, &got, &err));
    while (got);
    CHECK(document_bom(document) == 0 && document_digest(document, two) && memcmp(one, two, sizeof one) != 0);
    document_close(document);
    documents_close(d);
    buf_fini(&text);
}

static void test_a_change_is_seen(void **state)
{
    const char *words[] = { "grows.txt", "gone.txt", "same size.txt", "replaced.txt", "while.txt" };
    struct timespec times[2];
    struct documents *d;
    struct document *document;
    struct buf text = { 0 };
    struct stat st;
    char bytes[4096];
    size_t got;
    struct err err = { 0 };
    FILE *file;

    (void)state;
    for (int i = 0; i < 4; i++)
        put_text(words[i], "text");
    for (int i = 0; i < 100000; i++)
        CHECK(buf_text(&text, "text "));
    put("while.txt", text.data, text.size);
    d = list(words, 5, NULL);
    for (size_t i = 0; i < 4; i++)
        check_text(d, i, "text");
    put_text("grows.txt", "text and more");
    check_failure(d, 0, ERR_CONFLICT, "changed");
    CHECK(unlink("gone.txt") == 0);
    check_failure(d, 1, ERR_NOT_FOUND, "vanished");
    /* Neither size nor time tell: the digest does. */
    CHECK(stat("same size.txt", &st) == 0);
    times[0] = st.st_atim;
    times[1] = st.st_mtim;
    file = fopen("same size.txt", "r+");
    CHECK(file && fputs("TEXT", file) >= 0 && fclose(file) == 0 &&
          utimensat(AT_FDCWD, "same size.txt", times, 0) == 0);
    check_failure(d, 2, ERR_CONFLICT, "changed between two readings");
    CHECK(unlink("replaced.txt") == 0 && mkfifo("replaced.txt", 0600) == 0);
    check_failure(d, 3, ERR_INPUT, "not a file"); /* and does not wait for a writer */
    /* Within one reading. */
    CHECK(document_open(&document, d, 4, &err) && document_read(document, bytes, sizeof bytes, &got, &err) &&
          got);
    CHECK(truncate("while.txt", 400000) == 0);
    while (document_read(document, bytes, sizeof bytes, &got, &err))
        CHECK(got);
    CHECK(err.code == ERR_CONFLICT && strstr(err.text, "changed"));
    document_close(document);
    documents_close(d);
    buf_fini(&text);
}

static void with_input(const char *text, bool pipe_it, const char *template,
                       void (*check)(struct documents *d))
{
    int had = dup(STDIN_FILENO), ends[2];
    const char *words[] = { "-", "-" };
    struct documents *d;

    if (pipe_it) {
        CHECK(pipe(ends) == 0 && write(ends[1], text, strlen(text)) == (ssize_t)strlen(text) &&
              close(ends[1]) == 0);
    } else {
        put_text("input", text);
        ends[0] = open("input", O_RDONLY);
    }
    CHECK(dup2(ends[0], STDIN_FILENO) == STDIN_FILENO && close(ends[0]) == 0);
    d = list(words, 2, template);
    check(d);
    documents_close(d);
    CHECK(dup2(had, STDIN_FILENO) == STDIN_FILENO && close(had) == 0);
}

static void check_input(struct documents *d)
{
    CHECK(documents_count(d) == 1 && !strcmp(documents_name(d, 0), "-"));
    check_text(d, 0, "from afar");
}

static void check_input_rows(struct documents *d)
{
    CHECK(documents_count(d) == 2 && !strcmp(documents_name(d, 1), "-#2"));
    check_text(d, 0, "x1");
    check_text(d, 1, "x2");
}

static void test_standard_input(void **state)
{
    (void)state;
    with_input("from afar", true, NULL, check_input);
    with_input("from afar", false, NULL, check_input);
    with_input("a,b\r\n1,2\r\n2,3\r\n", true, "x{a}", check_input_rows);
    with_input("a\tb\n1\t2,5\n2\t3\n", true, "x{a}", check_input_rows);
    with_input("\xef\xbb\xbf{\"a\":1}\n\n{\"a\":\"2\"}", false, "x{a}", check_input_rows);
}

static void test_rows_of_tables(void **state)
{
    const char *words[] = { "t" };
    struct documents *d;

    (void)state;
    CHECK(mkdir("t", 0700) == 0);
    put_text("t/a.csv", "\xef\xbb\xbf"
                        "id,title,\"the body\"\r\n"
                        "1,One,\"line\r\nline \"\"x\"\"\"\r\n"
                        "\r\n"
                        "2,Two\r\n"
                        "3,Three,b\"ad\r\n"
                        "4,,  \r\n"
                        "5,\xff,x\r\n"
                        "6,Six,last");
    put_text("t/b.jsonl",
             "{\"id\":1,\"title\":\"T\",\"the "
             "body\":{\"b\":[1,2.5,\"é\"],\"a\":null}}\r\n\n[1]\n{\"id\":\n{\"id\":null,\"titel\":\"T\"}\n"
             "{\"id\":0.1,\"title\":true,\"the body\":\"\"}\n"
             "{\"id\":8,\"title\":\"a\\u0000b\",\"the body\":\"\"}");
    put_text("t/c.tsv", "id\ttitle\tthe body\n1\tA, B\tC\n");
    put_text("t/d.txt", "no table");
    put_text("t/e.csv", "");
    put_text("t/f.csv", "id,id\n1,2\n");
    put("t/g.csv", BYTES("\xff\xfei\0d\0\n\0"));
    put_text("t/h.csv", "id,title,the body\n1,\"never ends\n2,b,c\n");
    d = list(words, 1, "{id}: {title} {{{the body}}}");
    CHECK(!strcmp(documents_name(d, 0), "t/a.csv#1") && !strcmp(documents_name(d, 5), "t/a.csv#6"));
    check_text(d, 0, "1: One {line\r\nline \"x\"}");
    check_failure(d, 1, ERR_INPUT, "row 2 (line 5): 2 fields, the first row names 3 columns");
    check_failure(d, 2, ERR_INPUT, "row 3 (line 6): line 6: field 3: a quote in the middle");
    check_text(d, 3, "4:  {  }");
    check_failure(d, 4, ERR_INPUT, "row 5 (line 8): not UTF-8 at byte");
    check_text(d, 5, "6: Six {last}");
    check_text(d, 6, "1: T {{\"b\":[1,2.5,\"é\"],\"a\":null}}");
    check_failure(d, 7, ERR_INPUT, "row 2 (line 3): not an object; expected a JSON object");
    check_failure(d, 8, ERR_INPUT, "row 3 (line 4): not JSON");
    check_failure(d, 9, ERR_INPUT, "row 4 (line 5): there is no column `title` (did you mean `titel`?)");
    check_text(d, 10, "0.1: true {}");
    check_failure(d, 11, ERR_INPUT, "a NUL byte at byte 4 of the row's text");
    CHECK(!strcmp(documents_name(d, 12), "t/c.tsv#1"));
    check_text(d, 12, "1: A, B {C}");
    CHECK(!strcmp(documents_name(d, 13), "t/e.csv"));
    check_failure(d, 13, ERR_INPUT, "empty; expected a first row");
    check_failure(d, 14, ERR_INPUT, "two columns are named `id`");
    check_failure(d, 15, ERR_INPUT, "looks like UTF-16LE");
    CHECK(!strcmp(documents_name(d, 16), "t/h.csv#1"));
    check_failure(d, 16, ERR_INPUT, "never ends");
    CHECK(documents_count(d) == 17);
    /* A table that changes fails its rows. */
    put_text("t/c.tsv", "id\ttitle\tthe body\n1\tA, B\tD, and more\n");
    check_failure(d, 12, ERR_CONFLICT, "changed");
    documents_close(d);
    words[0] = "t/d.txt";
    d = list(words, 1, "{id}");
    check_failure(d, 0, ERR_INPUT, "expected .csv, .tsv or .jsonl");
    documents_close(d);
    check_no_list("t", "no column", ERR_INPUT, "names no column");
    check_no_list("t", "a {b", ERR_INPUT, "byte 2: `{` has no `}`");
    check_no_list("t", "a {}", ERR_INPUT, "names no column");
    check_no_list("t", "{a}\xff", ERR_INPUT, "not UTF-8");
}

/* A row over the bound is that row's failure. */
static void test_a_row_that_is_too_long(void **state)
{
    const char *word = "long.jsonl";
    FILE *file = fopen(word, "w");
    struct documents *d;

    (void)state;
    CHECK(file && fputs("{\"a\":\"", file) >= 0);
    for (int i = 0; i <= DOCUMENT_ROW_MAX; i += 64)
        fputs("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", file);
    CHECK(fputs("\"}\n{\"a\":\"b\"}\n", file) >= 0 && fclose(file) == 0);
    d = list(&word, 1, "{a}");
    CHECK(documents_count(d) == 2);
    check_failure(d, 0, ERR_LIMIT, "row 1 (line 1): more than");
    check_text(d, 1, "b");
    documents_close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_the_order_of_names, enter),
        cmocka_unit_test_setup(test_a_file_named_twice_is_one, enter),
        cmocka_unit_test_setup(test_loops_and_what_is_no_file, enter),
        cmocka_unit_test_setup(test_what_may_not_be_read, enter),
        cmocka_unit_test_setup(test_names_of_any_bytes, enter),
        cmocka_unit_test_setup(test_what_is_no_text, enter),
        cmocka_unit_test_setup(test_a_fault_far_inside, enter),
        cmocka_unit_test_setup(test_texts_come_as_they_are, enter),
        cmocka_unit_test_setup(test_a_change_is_seen, enter),
        cmocka_unit_test_setup(test_standard_input, enter),
        cmocka_unit_test_setup(test_rows_of_tables, enter),
        cmocka_unit_test_setup(test_a_row_that_is_too_long, enter),
    };
    struct err err;
    int failed;

    if (sodium_init() < 0 || !mkdtemp(here))
        return 1;
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (chdir("/") == 0)
        file_remove_tree(here, &err);
    return failed;
}
