/* Between address.c (unix:) and address_tcp.c. */
#ifndef UMBEL_WIRE_ADDRESS_PRIVATE_H
#define UMBEL_WIRE_ADDRESS_PRIVATE_H

#include "control/wire/address.h"

int tcp_connect(const char *address);
int tcp_listen(const char *address, struct listener *out);

#endif
