/*
 * Inode numbers of the control files (.umbel), as far as mounts must understand them: the rest is
 * the centre's own.
 */
#ifndef UMBEL_WIRE_CONTROL_INO_H
#define UMBEL_WIRE_CONTROL_INO_H

#define CONTROL_INO_BIT (1ull << 63)
/* What is written there is one text, of up to CONTROL_TEXT_MAX bytes: it is gathered until the
 * file is closed or read, and sent whole. Its answer is what is read then. */
#define CONTROL_INO_GATHERS (1ull << 62)
#define CONTROL_TEXT_MAX    (1u << 20)

#endif
