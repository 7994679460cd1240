// Causal attention over paged KV caches: appends the new keys and values, then attends to all of them (attend.h).
//
// One call per layer does both, because the graph compiler would otherwise copy the cache to keep it functional. The
// tokens of all steps of a pass lie behind each other in the queries; the batch says whose they are.
#include <algorithm>
#include <atomic>
#include <new>

#include "attend.h"
#include "runtime.h"
#include "team.h"

namespace {

constexpr int64_t kFewRows = 48;        // up to this many rows per head, a step's context is read from memory only once
constexpr int64_t kSerialWork = 1024;   // query heads times tokens seen, below which a second thread costs more
constexpr int64_t kAppendTokens = 16;   // appended by one task
constexpr int64_t kTaskRows = 8 * kAttendRows;  // many rows: those of one task

template <typename E>
void append(const Batch& batch, const Shape& s, const Heads& k, const Heads& v, int64_t kv_head, int64_t token,
            const Arrival& arrival) {
  int64_t position = batch.positions[token];
  char* page = batch.steps[batch.owners[token]].pages[position / kPageTokens];
  k.gather(kv_head, token, s.d, 1.0f, arrival.key);
  v.gather(kv_head, token, s.dv, 1.0f, arrival.value);
  arrival.put(s, s.keys<E>(page, kv_head), s.values<E>(page, kv_head), position % kPageTokens);
}

// One step's share of the attention. Rows are (token, query head) pairs that share a key-value head.
struct Part {
  const Step* step;
  int64_t first;    // its first token in the pass
  int64_t rows;     // per key-value head
  int64_t base;     // of the first block of context
  int64_t blocks;   // of context
  int64_t tasks;    // few rows: key-value heads times blocks; else key-value heads times groups of rows
  int64_t partials; // few rows: where its partial results begin, in floats

  bool few() const { return rows <= kFewRows; }
  int64_t end() const { return step->past + step->count; }
  int64_t block_begin(int64_t block) const { return base + block * kBlockTokens; }
};

// What one thread works with.
template <typename E>
struct Desk {
  int64_t d16;
  float *query, *scores, *units;  // of one row, of kAttendRows, and of kTaskRows
  E *queries, *weights;           // of kTaskRows, and of kAttendRows
  Partial total, more;            // of kTaskRows, and of kAttendRows
  int64_t positions[kTaskRows];

  static int64_t floats(const Shape& s) {
    return round_up(s.d16 + kAttendRows * kBlockTokens + kTaskRows + kTaskRows * s.d16 + kAttendRows * kBlockTokens +
                    Partial::floats(kTaskRows, s.v16) + Partial::floats(kAttendRows, s.v16), 16);
  }
  Desk(float* memory, const Shape& s)
      : d16(s.d16), query(memory), scores(query + s.d16), units(scores + kAttendRows * kBlockTokens),
        queries(reinterpret_cast<E*>(units + kTaskRows)), weights(queries + kTaskRows * s.d16),
        total(units + kTaskRows + kTaskRows * s.d16 + kAttendRows * kBlockTokens, kTaskRows, s.v16),
        more(total.sum + kTaskRows, kAttendRows, s.v16) {}
  Rows<E> rows(int64_t first) const {
    if constexpr (!kScales<E>) return {positions + first, queries + first * d16, units, scores, scores};
    else return {positions + first, queries + first * d16, units + first, scores, weights};
  }
};

template <typename E>
class Attention {
 public:
  Attention(const Batch& batch, const Shape& s, const Heads& q, float* y) : batch_(batch), s_(s), q_(q), y_(y) {}

  // False when memory runs out.
  bool run() {
    int64_t count = batch_.count, work = 0, tasks = 0, floats = 0, first = 0;
    Scratch parts_memory(count * sizeof(Part)), left_memory(count * s_.kv_heads * sizeof(std::atomic<int64_t>));
    if (!parts_memory || !left_memory) return false;
    Part* parts = parts_memory.as<Part>();
    auto* left = left_memory.as<std::atomic<int64_t>>();
    for (int64_t i = 0; i < count; ++i) {
      const Step* step = batch_.steps + i;
      Part part{step, first, step->count * s_.group, s_.first_seen(step->past) / kBlockTokens * kBlockTokens, 0, 0, floats};
      part.blocks = (part.end() - part.base + kBlockTokens - 1) / kBlockTokens;
      part.tasks = s_.kv_heads * (part.few() ? part.blocks : (part.rows + kTaskRows - 1) / kTaskRows);
      if (part.few()) floats += round_up(s_.kv_heads * part.blocks * Partial::floats(part.rows, s_.v16), 16);
      for (int64_t h = 0; h < s_.kv_heads; ++h) new (left + i * s_.kv_heads + h) std::atomic<int64_t>(part.blocks);
      work += step->count * s_.heads * (part.end() - part.base);
      tasks += part.tasks, first += step->count;
      new (parts + i) Part(part);
    }
    int64_t desk = Desk<E>::floats(s_);
    Scratch desks(members() * desk * sizeof(float)), partials(floats * sizeof(float));
    if (!desks || !partials) return false;
    auto compute = [&](Member member) {
      Desk<E> mine(desks.as<float>() + member.index * desk, s_);
      for (int64_t task; member.take(task);) {
        int64_t i = 0;
        for (; task >= parts[i].tasks; ++i) task -= parts[i].tasks;
        const Part& part = parts[i];
        int64_t kv_head = task % s_.kv_heads, which = task / s_.kv_heads;
        if (!part.few()) {
          rows_over_context(part, kv_head, which * kTaskRows, mine);
          continue;
        }
        float* results = partials.as<float>() + part.partials;
        rows_over_block(part, kv_head, which, results, mine);
        if (left[i * s_.kv_heads + kv_head].fetch_sub(1, std::memory_order_acq_rel) == 1) join_blocks(part, kv_head, results);
      }
    };
    parallel(tasks, compute, {}, work < kSerialWork ? 1 : kMostMembers);
    return true;
  }

 private:
  const Batch& batch_;
  const Shape& s_;
  const Heads& q_;
  float* y_;

  // The positions and scaled queries of rows first .. first + rows.
  void prepare(const Part& part, int64_t kv_head, int64_t first, int rows, Desk<E>& desk) const {
    for (int r = 0; r < rows; ++r) {
      int64_t token = (first + r) / s_.group, head = kv_head * s_.group + (first + r) % s_.group;
      desk.positions[r] = part.step->past + token;
      q_.gather(head, part.first + token, s_.d, s_.scale, desk.query);
      E* query = desk.queries + r * s_.d16;
      if constexpr (kScales<E>) desk.units[r] = to_words<store_row>(desk.query, s_.d16, most_of_products(s_.d16), query);
      else std::copy(desk.query, desk.query + s_.d16, query);
    }
  }

  Partial partial(const Part& part, int64_t kv_head, int64_t block, int64_t row, int64_t rows, float* results) const {
    float* of_block = results + (block * s_.kv_heads + kv_head) * Partial::floats(part.rows, s_.v16);
    return Partial(of_block + Partial::floats(row, s_.v16), rows, s_.v16);
  }

  // Few rows: all of them over one block of context, read from memory once.
  void rows_over_block(const Part& part, int64_t kv_head, int64_t block, float* results, Desk<E>& desk) const {
    int64_t begin = part.block_begin(block), end = std::min(begin + kBlockTokens, part.end());
    for (int64_t row = 0; row < part.rows; row += kAttendRows) {
      int rows = (int)std::min<int64_t>(kAttendRows, part.rows - row);
      prepare(part, kv_head, row, rows, desk);
      attend<E>(rows, block_of<E>(s_, part.step->pages, kv_head, begin, end), desk.rows(0),
                partial(part, kv_head, block, row, rows, results));
    }
  }

  void join_blocks(const Part& part, int64_t kv_head, float* results) const {
    for (int64_t row = 0; row < part.rows; ++row) {
      int64_t group = row / kAttendRows * kAttendRows, r = row - group;
      int64_t rows = std::min<int64_t>(kAttendRows, part.rows - group);
      Partial total = partial(part, kv_head, 0, group, rows, results);
      for (int64_t block = 1; block < part.blocks; ++block) {
        Partial more = partial(part, kv_head, block, group, rows, results);
        join(total.out + r * s_.v16, total.top[r], total.sum[r], more.out + r * s_.v16, more.top[r], more.sum[r], s_.v16);
      }
      write(part, kv_head, row, total.out + r * s_.v16, total.sum[r]);
    }
  }

  // Many rows, a task's, over their whole context, a block at a time.
  void rows_over_context(const Part& part, int64_t kv_head, int64_t first, Desk<E>& desk) const {
    int64_t rows = std::min(kTaskRows, part.rows - first);
    prepare(part, kv_head, first, (int)rows, desk);
    auto base_of = [&](int64_t row) { return s_.first_seen(desk.positions[row]) / kBlockTokens * kBlockTokens; };
    int64_t last = desk.positions[rows - 1] + 1;
    for (int64_t begin = base_of(0); begin < last; begin += kBlockTokens) {
      Block<E> block = block_of<E>(s_, part.step->pages, kv_head, begin, std::min(begin + kBlockTokens, last));
      for (int64_t row = 0; row < rows; row += kAttendRows) {
        int count = (int)std::min<int64_t>(kAttendRows, rows - row);
        int64_t base = base_of(row), end = std::min(block.end, desk.positions[row + count - 1] + 1);
        if (begin < base || begin >= end) continue;  // none of these rows sees any of it
        Partial total = desk.total.from_row(row, s_.v16);
        attend<E>(count, block.until(end), desk.rows(row), begin == base ? total : desk.more);
        for (int r = 0; begin > base && r < count; ++r)
          join(total.out + r * s_.v16, total.top[r], total.sum[r], desk.more.out + r * s_.v16, desk.more.top[r],
               desk.more.sum[r], s_.v16);
      }
    }
    for (int64_t r = 0; r < rows; ++r) write(part, kv_head, first + r, desk.total.out + r * s_.v16, desk.total.sum[r]);
  }

  void write(const Part& part, int64_t kv_head, int64_t row, const float* out, float sum) const {
    int64_t token = part.first + row / s_.group, head = kv_head * s_.group + row % s_.group;
    float* to = y_ + (token * s_.heads + head) * s_.dv;
    float inverse = sum > 0 ? 1.0f / sum : 0.0f;
    for (int64_t j = 0; j < s_.dv; ++j) to[j] = out[j] * inverse;
  }
};

// False when memory runs out.
template <typename E>
bool run(const Batch& batch, const Shape& s, int64_t tokens, const Heads& q, const Heads& k, const Heads& v, float* y) {
  int64_t pieces = (tokens + kAppendTokens - 1) / kAppendTokens, each = Arrival::bytes(s);
  Scratch arrivals(members() * each);
  if (!arrivals) return false;
  parallel(s.kv_heads * pieces, [&](Member member) {
    Arrival arrival(arrivals.as<char>(member.index * each), s);
    for (int64_t task; member.take(task);) {
      int64_t begin = task / s.kv_heads * kAppendTokens, end = std::min(begin + kAppendTokens, tokens);
      for (int64_t token = begin; token < end; ++token) append<E>(batch, s, k, v, task % s.kv_heads, token, arrival);
    }
  }, {}, pieces == 1 ? 1 : kMostMembers);
  return Attention<E>(batch, s, q, y).run();
}

}  // namespace

// q [1, heads, S, D], k [1, kv_heads, S, D], v [1, kv_heads, S, Dv] -> [1, S, heads, Dv]. `batch` [1] holds the address
// of a Batch of S tokens. window 0: all tokens.
extern "C" int32_t aoti_torch_cpu_cached_attention(
    Tensor* q, Tensor* k, Tensor* v, Tensor* batch, int64_t offset, double scale, double softcap, int64_t window,
    Tensor** result) {
  Shape s;
  int64_t tokens = q->sizes[2];
  s.heads = q->sizes[1], s.kv_heads = k->sizes[1], s.group = s.heads / s.kv_heads;
  s.d = q->sizes[3], s.d16 = round_up(s.d, kTile), s.dv = v->sizes[3], s.v16 = round_up(s.dv, kTile);
  s.offset = offset, s.window = window, s.scale = (float)scale, s.softcap = (float)softcap;
  int64_t sizes[4] = {1, tokens, s.heads, s.dv};
  Tensor* y = new_tensor(4, sizes, kFloat32);
  if (!y) return 1;
  const Batch& of = *reinterpret_cast<const Batch*>(batch->ints()[0]);
  Heads query(q), key(k), value(v);
  bool done = of.element_bytes == 4 ? run<float>(of, s, tokens, query, key, value, y->floats())
                                    : run<int16_t>(of, s, tokens, query, key, value, y->floats());
  if (!done) {
    release(y);
    return 1;
  }
  *result = y;
  return 0;
}
