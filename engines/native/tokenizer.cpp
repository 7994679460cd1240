#include "tokenizer.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>
#include <vector>

#define EXPORT __attribute__((visibility("default")))

namespace {

constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();
constexpr uint64_t kMultiplier = 0x9E3779B97F4A7C15;  // 2^64 / golden ratio

// ---------------------------------------------------------------------------------------------------------- the file

struct Header {
  char magic[8];
  uint32_t version, checksum;
  uint64_t bytes;
  uint64_t options[OPTION_COUNT];
  struct {
    uint64_t offset, bytes;
  } sections[SECTION_COUNT];
};

template <typename T>
struct Table {
  const T* items;
  uint64_t size;

  Table(const void* file, int section)
      : items(reinterpret_cast<const T*>(static_cast<const char*>(file) +
                                         static_cast<const Header*>(file)->sections[section].offset)),
        size(static_cast<const Header*>(file)->sections[section].bytes / sizeof(T)) {}
  T operator[](uint64_t i) const { return items[i]; }
};

struct Text {
  const uint8_t* at;
  uint32_t size;

  Text from(uint32_t begin) const { return {at + begin, size - begin}; }
  Text part(uint32_t begin, uint32_t end) const { return {at + begin, end - begin}; }
};

// -------------------------------------------------------------------------------------------------------- hash tables

// Spreads a hash over `size` slots.
inline uint64_t slot_of(uint64_t hash, uint64_t size) { return ((hash * kMultiplier >> 32) * size) >> 32; }

inline uint64_t next_slot(uint64_t slot, uint64_t size) { return slot + 1 == size ? 0 : slot + 1; }

struct Merge {
  uint32_t left, right, rank, id;
};

inline uint64_t hash_pair(uint32_t left, uint32_t right) { return (left * kMultiplier) ^ right; }

inline uint64_t hash_bytes(Text text) {  // FNV-1a
  uint64_t hash = 0xCBF29CE484222325;
  for (uint32_t i = 0; i < text.size; ++i) hash = (hash ^ text.at[i]) * 0x100000001B3;
  return hash ^ (hash >> 32);
}

struct Merges {
  Table<Merge> slots;

  // The merge of two tokens, nullptr where they have none.
  const Merge* find(uint32_t left, uint32_t right) const {
    uint64_t slot = slot_of(hash_pair(left, right), slots.size);
    for (uint64_t tried = 0; tried < slots.size; ++tried, slot = next_slot(slot, slots.size)) {
      const Merge& merge = slots.items[slot];
      if (merge.left == left && merge.right == right) return &merge;
      if (merge.left == kNone) return nullptr;
    }
    return nullptr;
  }
};

struct Vocabulary {
  Table<uint32_t> slots, ends;
  Table<uint8_t> bytes;

  // The token with these bytes, kNone where there is none.
  uint32_t find(Text text) const {
    uint64_t slot = slot_of(hash_bytes(text), slots.size);
    for (uint64_t tried = 0; tried < slots.size; ++tried, slot = next_slot(slot, slots.size)) {
      uint32_t id = slots[slot];
      if (id == kNone) return kNone;
      if (uint64_t{id} + 1 >= ends.size) continue;
      uint32_t begin = ends[id], end = ends[id + 1];
      if (end - begin == text.size && begin <= end && end <= bytes.size &&
          std::memcmp(bytes.items + begin, text.at, text.size) == 0)
        return id;
    }
    return kNone;
  }
};

// ------------------------------------------------------------------------------------------------------- added tokens

struct Entry {
  uint32_t offset, size, id;
};

struct Found {
  uint32_t begin, end, id;
};

// Texts in the order of their bytes, so that those which begin alike lie together and the shortest of them first.
struct Added {
  Table<Entry> entries;
  Table<uint32_t> first;  // [257] of the entries that begin with each byte
  Table<uint8_t> texts;

  Added(const void* file, int entries_section, int first_section, int texts_section)
      : entries(file, entries_section), first(file, first_section), texts(file, texts_section) {}

  // The first of them in `text` from `begin` on; of several that begin there the longest.
  bool find(Text text, uint32_t begin, Found* found) const {
    for (; begin < text.size; ++begin) {
      uint64_t low = first[text.at[begin]], high = first[text.at[begin] + 1];
      if (low >= high || high > entries.size) continue;
      bool any = false;
      for (uint32_t depth = 1;; ++depth) {  // all from `low` to `high` have `depth` bytes of the text
        if (entries[low].size == depth) {
          *found = {begin, begin + depth, entries[low].id};
          any = true;
          ++low;
        }
        if (low == high || begin + depth >= text.size) break;
        uint8_t next = text.at[begin + depth];
        auto above = [&](const Entry& entry, int byte) { return at(entry, depth) < byte; };
        const Entry* end = entries.items + high;
        const Entry* from = std::lower_bound(entries.items + low, end, int{next}, above);
        end = std::lower_bound(from, end, next + 1, above);
        if (from == end) break;
        low = from - entries.items;
        high = end - entries.items;
      }
      if (any) return true;
    }
    return false;
  }

 private:
  // Byte `depth` of an entry's text, -1 after its end.
  int at(const Entry& entry, uint32_t depth) const {
    uint64_t place = uint64_t{entry.offset} + depth;
    return depth < entry.size && place < texts.size ? texts[place] : -1;
  }
};

// --------------------------------------------------------------------------------------------------------- characters

struct Character {
  uint32_t code, size;
};

inline Character character_at(Text text, uint32_t place) {
  const uint8_t* at = text.at + place;
  uint32_t size = at[0] < 0x80 ? 1 : at[0] < 0xE0 ? 2 : at[0] < 0xF0 ? 3 : 4;
  if (size == 1 || size > text.size - place) return {at[0], 1};
  uint32_t code = at[0] & (0x7F >> size);
  for (uint32_t i = 1; i < size; ++i) code = code << 6 | (at[i] & 0x3F);
  return {code, size};
}

struct Classes {
  Table<uint16_t> blocks;
  Table<uint8_t> classes;

  uint8_t of(uint32_t code) const {
    uint64_t block = code / CLASS_BLOCK < blocks.size ? blocks[code / CLASS_BLOCK] : 0;
    uint64_t place = block * CLASS_BLOCK + code % CLASS_BLOCK;
    return place < classes.size ? classes[place] : 0;
  }
};

constexpr uint8_t kWord = CLASS_LETTER | CLASS_NUMBER | CLASS_SPACE;  // none of them: punctuation, marks, the rest

inline bool is_newline(uint8_t byte) { return byte == '\r' || byte == '\n'; }

// Where the expressions that split a text into words end the word at a place. They are matched as a regular expression
// is: the first alternative that fits.
struct Splitter {
  Classes classes;
  uint64_t kind;

  uint32_t word_end(Text text, uint32_t begin) const {
    return kind == SPLIT_GPT_2 || kind == SPLIT_DIGITS_GPT_2 ? gpt_2(text, begin) : cl100k(text, begin);
  }

  // The next place, from `begin` on, where a run of numbers begins or ends that is split off first.
  uint32_t digits_end(Text text, uint32_t begin) const {
    Character first = character_at(text, begin);
    if (classes.of(first.code) & CLASS_NUMERIC) return begin + first.size;
    return run(text, begin, CLASS_NUMERIC, false);
  }

 private:
  struct Seen {
    uint8_t kinds;
    uint32_t end;
  };

  Seen look(Text text, uint32_t place) const {
    if (place >= text.size) return {0xFF, place};
    Character character = character_at(text, place);
    return {classes.of(character.code), place + character.size};
  }

  // The end of the characters from `place` on that are, or are not, of `kinds`.
  uint32_t run(Text text, uint32_t place, uint8_t kinds, bool are, uint32_t most = kNone) const {
    for (; place < text.size && most > 0; --most) {
      Seen seen = look(text, place);
      if (((seen.kinds & kinds) != 0) != are) break;
      place = seen.end;
    }
    return place;
  }

  // '(?:[sdmt]|ll|ve|re), in either case where `any_case` says so; `begin` where there is none.
  uint32_t contraction(Text text, uint32_t begin, bool any_case) const {
    if (text.at[begin] != '\'' || begin + 1 >= text.size) return begin;
    auto lower = [&](uint32_t place) -> int {
      if (place >= text.size) return 0;
      uint8_t byte = text.at[place];
      return any_case && byte >= 'A' && byte <= 'Z' ? byte + 32 : byte;
    };
    int one = lower(begin + 1), two = lower(begin + 2);
    if (one == 's' || one == 'd' || one == 'm' || one == 't') return begin + 2;
    if ((one == 'l' && two == 'l') || (one == 'v' && two == 'e') || (one == 'r' && two == 'e')) return begin + 3;
    bool long_s = any_case && one == 0xC5 && two == 0xBF;  // U+017F, the other small letter of S
    return long_s ? begin + 3 : begin;
  }

  // \s+(?!\S)|\s+ : white space but the last character of it before a word, which takes that one.
  uint32_t spaces(Text text, uint32_t begin, uint32_t end) const {
    if (end == text.size) return end;
    uint32_t last = begin;
    for (uint32_t place = begin; place < end; place = look(text, place).end) last = place;
    return last > begin ? last : end;
  }

  // '(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
  uint32_t gpt_2(Text text, uint32_t begin) const {
    uint32_t end = contraction(text, begin, false);
    if (end > begin) return end;
    uint32_t word = begin + (text.at[begin] == ' ');
    Seen first = look(text, word);
    if (word == text.size || first.kinds & CLASS_SPACE) return spaces(text, begin, run(text, begin, CLASS_SPACE, true));
    if (first.kinds & CLASS_LETTER) return run(text, first.end, CLASS_LETTER, true);
    if (first.kinds & CLASS_NUMBER) return run(text, first.end, CLASS_NUMBER, true);
    return run(text, first.end, kWord, false);
  }

  // (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
  // with 3 or 1 numbers.
  uint32_t cl100k(Text text, uint32_t begin) const {
    uint32_t end = contraction(text, begin, true);
    if (end > begin) return end;
    Seen first = look(text, begin);
    if (first.kinds & CLASS_LETTER) return run(text, first.end, CLASS_LETTER, true);
    if (first.kinds & CLASS_NUMBER) return run(text, first.end, CLASS_NUMBER, true, kind == SPLIT_LLAMA_3 ? 2 : 0);
    Seen second = look(text, first.end);
    if (!is_newline(text.at[begin]) && first.end < text.size && second.kinds & CLASS_LETTER)
      return run(text, second.end, CLASS_LETTER, true);
    uint32_t word = begin + (text.at[begin] == ' ');
    end = run(text, word, kWord, false);
    if (end > word) {
      while (end < text.size && is_newline(text.at[end])) ++end;
      return end;
    }
    end = run(text, begin, CLASS_SPACE, true);
    for (uint32_t place = end; place > begin; --place)
      if (is_newline(text.at[place - 1])) return place;
    return spaces(text, begin, end);
  }
};

// --------------------------------------------------------------------------------------------------------------- BPE

struct Symbol {
  uint32_t id;
  uint32_t before, after;  // neighbours, kNone at the ends
};

struct Candidate {
  uint64_t order;  // rank, then place: the lowest is merged first
  uint32_t id;

  bool operator<(const Candidate& other) const { return order > other.order; }  // heaps have the largest first
};

class Encoder {
 public:
  Encoder(const void* file, int64_t* ids, int64_t capacity)
      : options_(static_cast<const Header*>(file)->options),
        raw_(file, SECTION_RAW_ENTRIES, SECTION_RAW_FIRST, SECTION_RAW_TEXTS),
        normalized_(file, SECTION_NORMALIZED_ENTRIES, SECTION_NORMALIZED_FIRST, SECTION_NORMALIZED_TEXTS),
        splitter_{{{file, SECTION_CLASS_BLOCKS}, {file, SECTION_CLASSES}}, options_[OPTION_SPLIT]},
        merges_{{file, SECTION_MERGES}},
        vocabulary_{{file, SECTION_VOCABULARY}, {file, SECTION_ENDS}, {file, SECTION_BYTES}},
        of_bytes_(file, SECTION_OF_BYTES),
        ids_(ids),
        capacity_(capacity) {}

  int64_t encode(Text text, bool whole) {
    begin_ = text.at;
    if (whole)
      between(raw_, text, [this](Text part) { normalize(part); });
    else
      normalize(text);
    return damaged_ ? kDamaged : count_;
  }

 private:
  // Added tokens as such, and what lies between them through `rest`.
  template <typename Rest>
  void between(const Added& added, Text text, Rest rest) {
    uint32_t done = 0;
    for (Found found; added.find(text, done, &found); done = found.end) {
      if (found.begin > done) rest(text.part(done, found.begin));
      put(found.id);
    }
    if (done < text.size) rest(text.from(done));
  }

  void normalize(Text text) {
    auto then = [this](Text part) { words(part); };
    switch (options_[OPTION_NORMALIZER]) {
      case NORMALIZER_SPACES:
      case NORMALIZER_PREFIXED_SPACES:
        return mark(text, options_[OPTION_NORMALIZER] == NORMALIZER_PREFIXED_SPACES,
                    [&](Text marked) { between(normalized_, marked, then); });
      case NORMALIZER_METASPACE:
      case NORMALIZER_METASPACE_FIRST:
      case NORMALIZER_METASPACE_ALWAYS:
        return between(normalized_, text, [&](Text part) { mark(part, leads(part), then); });
    }
    between(normalized_, text, then);
  }

  // Whether a metaspace puts a mark in front of a part of the text: not where there is one, or will be.
  bool leads(Text part) const {
    uint64_t kind = options_[OPTION_NORMALIZER];
    if (kind == NORMALIZER_METASPACE || (kind == NORMALIZER_METASPACE_FIRST && part.at != begin_)) return false;
    return part.at[0] != ' ' && (part.size < sizeof kMark || std::memcmp(part.at, kMark, sizeof kMark) != 0);
  }

  // The text with marks for its spaces, and one in front where it `leads`, through `rest`.
  template <typename Rest>
  void mark(Text text, bool leads, Rest rest) {
    std::vector<uint8_t> marked;
    marked.reserve(text.size + sizeof kMark);
    if (leads) marked.insert(marked.end(), kMark, kMark + sizeof kMark);
    for (uint32_t i = 0; i < text.size; ++i)
      if (text.at[i] == ' ')
        marked.insert(marked.end(), kMark, kMark + sizeof kMark);
      else
        marked.push_back(text.at[i]);
    if (marked.size() >= kNone) throw std::bad_alloc();
    rest(Text{marked.data(), static_cast<uint32_t>(marked.size())});
  }

  void words(Text text) {
    if (splitter_.kind == SPLIT_NONE) return word(text);
    if (splitter_.kind != SPLIT_DIGITS_GPT_2) return words_of(text);
    for (uint32_t begin = 0, end; begin < text.size; begin = end) {
      end = splitter_.digits_end(text, begin);
      words_of(text.part(begin, end));
    }
  }

  void words_of(Text text) {
    for (uint32_t begin = 0, end; begin < text.size; begin = end) {
      end = std::max(splitter_.word_end(text, begin), begin + 1);  // an altered table could stand still
      word(text.part(begin, end));
    }
  }

  // Byte pair encoding, the pair of lowest rank first and of several the leftmost: n log n in the word's length.
  void word(Text text) {
    if (options_[OPTION_IGNORE_MERGES] && text.size <= options_[OPTION_LONGEST_BYTES]) {
      uint32_t id = vocabulary_.find(text);
      if (id != kNone) return put(id);
    }
    begin_symbols(text);
    heap_.clear();
    for (uint32_t i = 0; i + 1 < symbols_.size(); ++i) add_candidate(i);
    std::make_heap(heap_.begin(), heap_.end());
    while (!heap_.empty()) {
      std::pop_heap(heap_.begin(), heap_.end());
      Candidate candidate = heap_.back();
      heap_.pop_back();
      uint32_t place = static_cast<uint32_t>(candidate.order);
      Symbol& left = symbols_[place];
      if (left.id == kNone || left.after == kNone) continue;
      Symbol& right = symbols_[left.after];
      const Merge* merge = merges_.find(left.id, right.id);
      if (!merge || merge->id != candidate.id) continue;  // one of the two has become part of another token
      left.id = merge->id;
      left.after = right.after;
      right.id = kNone;
      if (left.after != kNone) symbols_[left.after].before = place;
      if (left.before != kNone && add_candidate(left.before)) std::push_heap(heap_.begin(), heap_.end());
      if (left.after != kNone && add_candidate(place)) std::push_heap(heap_.begin(), heap_.end());
    }
    for (uint32_t i = 0; i != kNone && i < symbols_.size(); i = symbols_[i].after) put(symbols_[i].id);
  }

  void begin_symbols(Text text) {
    symbols_.clear();
    auto add = [this](uint32_t id) {
      uint32_t place = static_cast<uint32_t>(symbols_.size());
      symbols_.push_back({id, place - 1, place + 1});  // place 0 has kNone before it
    };
    bool characters = options_[OPTION_DECODER] != DECODER_BYTE_LEVEL;
    for (uint32_t i = 0, size; i < text.size; i += size) {
      size = characters ? character_at(text, i).size : 1;
      uint32_t id = characters ? vocabulary_.find(text.part(i, i + size)) : kNone;
      if (id != kNone) {
        add(id);
        continue;
      }
      for (uint32_t byte = i; byte < i + size; ++byte) add(of_bytes_[text.at[byte]]);
    }
    if (!symbols_.empty()) symbols_.back().after = kNone;
  }

  // Puts the pair that begins at `place` at the end of the heap's memory, if it can be merged.
  bool add_candidate(uint32_t place) {
    const Symbol& left = symbols_[place];
    const Merge* merge = merges_.find(left.id, symbols_[left.after].id);
    if (!merge) return false;
    heap_.push_back({uint64_t{merge->rank} << 32 | place, merge->id});
    return true;
  }

  void put(uint32_t id) {
    damaged_ |= uint64_t{id} + 1 >= vocabulary_.ends.size;
    if (count_ < capacity_) ids_[count_] = id;
    ++count_;
  }

  static constexpr uint8_t kMark[] = {0xE2, 0x96, 0x81};  // U+2581, which stands for a space

  const uint64_t* options_;
  const uint8_t* begin_ = nullptr;  // of the whole text
  Added raw_, normalized_;
  Splitter splitter_;
  Merges merges_;
  Vocabulary vocabulary_;
  Table<uint32_t> of_bytes_;
  int64_t* ids_;
  int64_t capacity_, count_ = 0;
  bool damaged_ = false;
  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;
};

}  // namespace

extern "C" {

EXPORT int32_t tokenizer_version() { return TOKENIZER_VERSION; }

EXPORT int64_t tokenizer_encode(const void* file, const uint8_t* text, int64_t size, int32_t whole, int64_t* ids,
                                int64_t capacity) {
  if (size >= kNone) return kNoMemory;
  try {
    return Encoder(file, ids, capacity).encode({text, static_cast<uint32_t>(size)}, whole);
  } catch (const std::bad_alloc&) {
    return kNoMemory;
  }
}

EXPORT int32_t tokenizer_find_added(const void* file, const uint8_t* text, int64_t size, int64_t begin, int64_t* found) {
  Added added(file, SECTION_RAW_ENTRIES, SECTION_RAW_FIRST, SECTION_RAW_TEXTS);
  Found next;
  if (size >= kNone || !added.find({text, static_cast<uint32_t>(size)}, static_cast<uint32_t>(begin), &next)) return 0;
  found[0] = next.begin;
  found[1] = next.end;
  found[2] = next.id;
  return 1;
}

EXPORT int64_t tokenizer_find(const void* file, const uint8_t* text, int64_t size) {
  Vocabulary vocabulary{{file, SECTION_VOCABULARY}, {file, SECTION_ENDS}, {file, SECTION_BYTES}};
  uint32_t id = size < kNone ? vocabulary.find({text, static_cast<uint32_t>(size)}) : kNone;
  return id == kNone ? -1 : int64_t{id};
}

EXPORT int32_t tokenizer_fill_merges(uint32_t* slots, int64_t size, const uint32_t* merges, int64_t count) {
  if (count >= size) return 1;
  Merge* table = reinterpret_cast<Merge*>(slots);
  for (const Merge *merge = reinterpret_cast<const Merge*>(merges), *end = merge + count; merge < end; ++merge) {
    uint64_t slot = slot_of(hash_pair(merge->left, merge->right), size);
    while (table[slot].left != kNone) slot = next_slot(slot, size);
    table[slot] = *merge;
  }
  return 0;
}

EXPORT int32_t tokenizer_fill_vocabulary(uint32_t* slots, int64_t size, const uint32_t* ids, int64_t count,
                                         const uint32_t* ends, const uint8_t* bytes) {
  if (count >= size) return 1;
  for (int64_t i = 0; i < count; ++i) {
    Text text{bytes + ends[ids[i]], ends[ids[i] + 1] - ends[ids[i]]};
    uint64_t slot = slot_of(hash_bytes(text), size);
    while (slots[slot] != kNone) slot = next_slot(slot, size);
    slots[slot] = ids[i];
  }
  return 0;
}
}
