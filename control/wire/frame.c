#include "control/wire/frame.h"

#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * The header, little-endian:
 *   0 magic u32 | 4 kind u8 | 5 zero u8 | 6 type u16 | 8 id u64
 *   16 status i32 | 20 body length u32 | 24 payload length u32 | 28 zero u32
 */

/* Linux error numbers end here (MAX_ERRNO). */
#define STATUS_LEAST (-4095)

static void put16(uint8_t *out, uint16_t v)
{
    v = htole16(v);
    memcpy(out, &v, sizeof(v));
}

static void put32(uint8_t *out, uint32_t v)
{
    v = htole32(v);
    memcpy(out, &v, sizeof(v));
}

static void put64(uint8_t *out, uint64_t v)
{
    v = htole64(v);
    memcpy(out, &v, sizeof(v));
}

static uint16_t get16(const uint8_t *in)
{
    uint16_t v;
    memcpy(&v, in, sizeof(v));
    return le16toh(v);
}

static uint32_t get32(const uint8_t *in)
{
    uint32_t v;
    memcpy(&v, in, sizeof(v));
    return le32toh(v);
}

static uint64_t get64(const uint8_t *in)
{
    uint64_t v;
    memcpy(&v, in, sizeof(v));
    return le64toh(v);
}

void frame_put_header(const struct message *m, uint8_t out[FRAME_HEADER_SIZE])
{
    put32(out, FRAME_MAGIC);
    out[4] = (uint8_t)m->kind;
    out[5] = 0;
    put16(out + 6, m->type);
    put64(out + 8, m->id);
    put32(out + 16, (uint32_t)m->status);
    put32(out + 20, (uint32_t)m->body_len);
    put32(out + 24, (uint32_t)m->payload_len);
    put32(out + 28, 0);
}

int frame_get_header(const uint8_t in[FRAME_HEADER_SIZE], struct message *m)
{
    *m = (struct message){.kind = in[4],
                          .type = get16(in + 6),
                          .id = get64(in + 8),
                          .status = (int32_t)get32(in + 16),
                          .body_len = get32(in + 20),
                          .payload_len = get32(in + 24)};
    if (get32(in) != FRAME_MAGIC || m->body_len > FRAME_BODY_MAX ||
        m->payload_len > FRAME_PAYLOAD_MAX)
        return -EPROTO;
    switch (m->kind) {
    case FRAME_REQUEST:
    case FRAME_NOTIFY:
        return m->status == 0 ? 0 : -EPROTO;
    case FRAME_REPLY:
        return m->status <= 0 && m->status >= STATUS_LEAST ? 0 : -EPROTO;
    }
    return -EPROTO;
}

/* A cursor over protobuf bytes. */
struct bytes {
    const uint8_t *at;
    const uint8_t *end;
};

static bool get_varint(struct bytes *b, uint64_t *out)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && b->at < b->end; shift += 7) {
        uint8_t byte = *b->at++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *out = value;
            return true;
        }
    }
    return false;
}

/* Steps over a value. For a length-delimited one *content is what it holds. */
static bool get_value(struct bytes *b, unsigned wire_type, struct bytes *content)
{
    uint64_t n = 0;
    content->at = content->end = NULL;
    switch (wire_type) {
    case 0:
        return get_varint(b, &n);
    case 1:
        n = 8;
        break;
    case 2:
        if (!get_varint(b, &n))
            return false;
        break;
    case 5:
        n = 4;
        break;
    default:
        return false;
    }
    if (n > (uint64_t)(b->end - b->at))
        return false;
    if (wire_type == 2) {
        content->at = b->at;
        content->end = b->at + n;
    }
    b->at += n;
    return true;
}

/* protobuf-c ends strings with a NUL of its own, so one inside would silently cut a name. As
 * star.proto has no message that holds itself, the depth is that of the schema. */
static bool strings_are_whole(struct bytes b, const ProtobufCMessageDescriptor *type)
{
    while (b.at < b.end) {
        uint64_t key;
        struct bytes content;
        if (!get_varint(&b, &key) || key >> 3 > UINT32_MAX || !get_value(&b, key & 7, &content))
            return false;
        if (content.at == content.end)
            continue;
        const ProtobufCFieldDescriptor *field =
            protobuf_c_message_descriptor_get_field(type, (unsigned)(key >> 3));
        if (!field)
            continue;
        if (field->type == PROTOBUF_C_TYPE_STRING &&
            memchr(content.at, 0, (size_t)(content.end - content.at)))
            return false;
        if (field->type == PROTOBUF_C_TYPE_MESSAGE &&
            !strings_are_whole(content, field->descriptor))
            return false;
    }
    return true;
}

/* An allocator that bounds what one body may unpack to; its memory is malloc's, so that the plain
 * protobuf_c_message_free_unpacked(m, NULL) frees it. */
static void *bounded_alloc(void *data, size_t size)
{
    size_t *left = data;
    if (size > *left)
        return NULL;
    *left -= size;
    return malloc(size ? size : 1);
}

static void bounded_free(void *data, void *p)
{
    (void)data;
    free(p);
}

ProtobufCMessage *frame_unpack(const struct message *m, const ProtobufCMessageDescriptor *type)
{
    if (m->body_len > 0 && memchr(m->body, 0, m->body_len) &&
        !strings_are_whole((struct bytes){m->body, m->body + m->body_len}, type))
        return NULL;
    size_t left = FRAME_UNPACKED_MAX;
    ProtobufCAllocator bounded = {
        .alloc = bounded_alloc, .free = bounded_free, .allocator_data = &left};
    return protobuf_c_message_unpack(type, &bounded, m->body_len, m->body);
}

ProtobufCMessage *frame_copy(const ProtobufCMessage *m)
{
    size_t len = protobuf_c_message_get_packed_size(m);
    uint8_t *packed = malloc(len + 1);
    ProtobufCMessage *copy = NULL;

    if (packed) {
        protobuf_c_message_pack(m, packed);
        copy = protobuf_c_message_unpack(m->descriptor, NULL, len, packed);
    }
    free(packed);
    return copy;
}

const char *frame_type_name(uint16_t type, char buf[16])
{
    const ProtobufCEnumValue *v =
        protobuf_c_enum_descriptor_get_value(&star__msg_type__descriptor, type);
    if (v)
        return v->name;
    snprintf(buf, 16, "type %u", (unsigned)type);
    return buf;
}
