/* What compiled code does with the work of benchmarks/batch.py: POWER9 radix walks, one address at a time.
 *
 * usage: walk2d GIBIBYTES ADDRESSES ROUNDS [FILE]
 *
 * A guest of 4 KiB pages, in shuffled order, behind a host table in shuffled order; both trees have index widths
 * 13, 9, 9, 9, and a shadow tree maps guest effective addresses straight to the host's. Each round translates the
 * same random addresses three ways and prints the nanoseconds that one took: through both trees (each guest entry
 * is found through the host tree: 24 reads), through the shadow tree (4 reads), and, for what memory alone allows,
 * by two dependent reads at random places in the tables. Every result of the first is compared with the second.
 * FILE receives a header of eight words, the tables, the addresses and where they lead, for others to do the same.
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { LEVELS = 4, ROOT_BITS = 13, TABLE_BITS = 9, PAGE = 4096, ROOT_BYTES = 65536, ADDRESS_BITS = 52 };
#define VALID (UINT64_C(1) << 63)
#define LEAF (UINT64_C(1) << 62)
#define FRAME UINT64_C(0x01fffffffffff000)
#define TABLE UINT64_C(0x0fffffffffffff00)
#define WIDTH UINT64_C(0x1f)
#define FLAGS UINT64_C(0x187) /* R, C, read, write, execute */
#define READ UINT64_C(4)
#define GUEST_TABLES (UINT64_C(1) << 40)
#define HOST_PAGES (UINT64_C(1) << 36)

static uint64_t *memory, used, capacity; /* bytes */
static uint64_t host, guest, shadow, next_guest_table = GUEST_TABLES;

static uint64_t swapped(uint64_t word) { return __builtin_bswap64(word); }
static uint64_t fetch(uint64_t address) { return swapped(memory[address >> 3]); }
static void put(uint64_t address, uint64_t word) { memory[address >> 3] = swapped(word); }

static uint64_t take(uint64_t bytes)
{
	uint64_t at = (used + bytes - 1) / bytes * bytes;

	used = at + bytes;
	if (used > capacity) {
		fprintf(stderr, "walk2d: out of room for tables\n");
		exit(2);
	}
	return at;
}

enum { DONE, ABSENT, DENIED };

/* One step down: from the entry to the address of the next one, or to the leaf (then *left is its page shift). */
static inline int descend(uint64_t entry, uint64_t address, int *left, unsigned *bits, uint64_t *next)
{
	*left -= *bits;
	if (entry & LEAF)
		return 1;
	*bits = entry & WIDTH;
	*next = (entry & TABLE) + ((address >> (*left - *bits) & ((UINT64_C(1) << *bits) - 1)) << 3);
	return 0;
}

static inline uint64_t first_entry(uint64_t root, uint64_t address)
{
	return root + ((address >> (ADDRESS_BITS - ROOT_BITS) & ((1 << ROOT_BITS) - 1)) << 3);
}

static inline int finish(uint64_t entry, uint64_t address, int left, uint64_t *output)
{
	uint64_t low = (UINT64_C(1) << left) - 1;

	*output = (entry & FRAME & ~low) | (address & low);
	return entry & READ ? DONE : DENIED;
}

static int walk(uint64_t root, uint64_t address, uint64_t *output)
{
	int left = ADDRESS_BITS;
	unsigned bits = ROOT_BITS;
	uint64_t entry, at = first_entry(root, address);

	do {
		entry = fetch(at);
		if (!(entry & VALID))
			return ABSENT;
	} while (!descend(entry, address, &left, &bits, &at));
	return finish(entry, address, left, output);
}

static int walk_nested(uint64_t address, uint64_t *output)
{
	int left = ADDRESS_BITS, failed;
	unsigned bits = ROOT_BITS;
	uint64_t entry, real, at = first_entry(guest, address);

	do {
		failed = walk(host, at, &real);
		if (failed)
			return failed;
		entry = fetch(real);
		if (!(entry & VALID))
			return ABSENT;
	} while (!descend(entry, address, &left, &bits, &at));
	failed = finish(entry, address, left, &real);
	return failed ? failed : walk(host, real, output);
}

static void map(uint64_t root, uint64_t address, uint64_t page);

/* Where a guest's word is: pages of guest tables are mapped when they are made. */
static uint64_t place(uint64_t root, uint64_t at)
{
	uint64_t real = at;

	if (root == guest && walk(host, at, &real) != DONE)
		exit(2);
	return real;
}

static uint64_t new_table(uint64_t root)
{
	uint64_t at;

	if (root != guest)
		return take(PAGE);
	at = next_guest_table;
	next_guest_table += PAGE;
	map(host, at, take(PAGE));
	return at;
}

static void map(uint64_t root, uint64_t address, uint64_t page)
{
	uint64_t table = root, at, entry;
	int level, left = ADDRESS_BITS - ROOT_BITS;

	for (level = 0; level < LEVELS - 1; level++, left -= TABLE_BITS) {
		at = place(root, table + (address >> left & ((1 << (level ? TABLE_BITS : ROOT_BITS)) - 1)) * 8);
		entry = fetch(at);
		if (!entry) {
			entry = VALID | new_table(root) | TABLE_BITS;
			put(at, entry);
		}
		table = entry & TABLE;
	}
	put(place(root, table + (address >> left & ((1 << TABLE_BITS) - 1)) * 8), VALID | LEAF | page | FLAGS);
}

static uint64_t random_word(void)
{
	static uint64_t state = UINT64_C(0x853c49e6748fea9b);
	uint64_t z = state += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec * 1e-9;
}

static void save(const char *name, const uint64_t *addresses, const uint64_t *outputs, uint64_t count)
{
	uint64_t header[8] = { used, count, host, guest, shadow, 0, 0, 0 };
	FILE *file = fopen(name, "wb");

	if (!file || fwrite(header, sizeof header, 1, file) != 1 || fwrite(memory, used, 1, file) != 1 ||
	    fwrite(addresses, 8 * count, 1, file) != 1 || fwrite(outputs, 8 * count, 1, file) != 1 || fclose(file)) {
		fprintf(stderr, "walk2d: cannot write %s\n", name);
		exit(2);
	}
}

int main(int argc, char **argv)
{
	uint64_t pages, count, page, index, *addresses, *outputs, *straight, sum = 0, words;
	int rounds, round, bad = 0;

	if (argc < 4) {
		fprintf(stderr, "usage: walk2d GIBIBYTES ADDRESSES ROUNDS [FILE]\n");
		return 2;
	}
	pages = strtoull(argv[1], NULL, 10) << 18;
	count = strtoull(argv[2], NULL, 10);
	rounds = atoi(argv[3]);
	capacity = (UINT64_C(64) << 20) + pages * 32;
	memory = calloc(1, capacity);
	addresses = malloc(8 * count);
	outputs = malloc(8 * count);
	straight = malloc(8 * count);
	if (!memory || !addresses || !outputs || !straight || !pages)
		return 2;
	used = ROOT_BYTES;
	host = take(ROOT_BYTES);
	shadow = take(ROOT_BYTES);
	guest = next_guest_table;
	next_guest_table += ROOT_BYTES;
	for (index = 0; index < ROOT_BYTES; index += PAGE)
		map(host, guest + index, take(PAGE));
	for (page = 0; page < pages; page++) {
		uint64_t in_guest = (page * UINT64_C(2654435761) & (pages - 1)) * PAGE;
		uint64_t in_host = HOST_PAGES + (page * UINT64_C(40503) & (pages - 1)) * PAGE;

		map(host, in_guest, in_host);
		map(guest, page * PAGE, in_guest);
		map(shadow, page * PAGE, in_host);
	}
	used = (used + PAGE - 1) / PAGE * PAGE;
	for (index = 0; index < count; index++)
		addresses[index] = (random_word() & (pages - 1)) * PAGE | (random_word() & 0xff8);
	words = used / 8;
	for (round = 0; round < rounds; round++) {
		double begin = seconds(), nested, one, two;

		for (index = 0; index < count; index++)
			bad |= walk_nested(addresses[index], &outputs[index]);
		nested = seconds() - begin;
		begin = seconds();
		for (index = 0; index < count; index++)
			bad |= walk(shadow, addresses[index], &straight[index]);
		one = seconds() - begin;
		begin = seconds();
		for (index = 0; index < count; index++) {
			uint64_t at = memory[(addresses[index] * UINT64_C(0x9e3779b97f4a7c15) >> 20) % words];

			sum += memory[((at ^ addresses[index]) * UINT64_C(0xbf58476d1ce4e5b9) >> 20) % words];
		}
		two = seconds() - begin;
		for (index = 0; index < count; index++)
			bad |= (outputs[index] != straight[index]) << 4;
		printf("{\"nested\": %.4f, \"shadow\": %.4f, \"two_reads\": %.4f, \"bad\": %d, \"sum\": %" PRIu64 "}\n",
		       nested / count * 1e9, one / count * 1e9, two / count * 1e9, bad, sum & 0xff);
	}
	if (argc > 4)
		save(argv[4], addresses, outputs, count);
	return bad ? 1 : 0;
}
