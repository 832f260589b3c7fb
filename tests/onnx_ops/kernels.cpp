// The kernels of a processor beside the plain ones of the same build, function by function: integers to the bit, floats
// within rounding. Prints the names of those that run here, and what differs, if anything does.

#include "kernels.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

using namespace ernie_rt;

constexpr double CLOSE = 1e-5;  // of the rms

struct Outcome {
  std::vector<int64_t> integers;
  std::vector<std::vector<float>> numbers;

  template <class T>
  void add(const std::vector<T>& found) {
    if constexpr (std::is_integral_v<T>) {
      integers.insert(integers.end(), found.begin(), found.end());
    } else {
      numbers.push_back(found);
    }
  }
  void add_bits(const std::vector<float>& found) {
    for (const float x : found) {
      int32_t bits;
      std::memcpy(&bits, &x, sizeof bits);
      integers.push_back(std::isnan(x) ? 0x7fc00000 : bits);
    }
  }
};

// What is drawn is the same for all kernels.
class Draw {
 public:
  std::vector<float> normal(size_t count, float spread = 1) {
    std::vector<float> found(count);
    for (float& x : found) x = spread * distribution_(engine_);
    return found;
  }
  template <class T>
  std::vector<T> integers(size_t count, int first, int last) {
    std::vector<T> found(count);
    for (T& x : found) x = static_cast<T>(first + engine_() % (last - first + 1));
    return found;
  }

 private:
  std::mt19937 engine_{1};
  std::normal_distribution<float> distribution_;
};

Outcome quantize(const Kernels& kernels) {
  Draw draw;
  Outcome outcome;
  const float infinite = std::numeric_limits<float>::infinity();
  for (const size_t block : {32, 64, 128}) {
    for (const float spread : {1.f, 0.f, 1e-38f, 1e38f, infinite, std::nanf("")}) {
      for (const size_t count : {1, 2, 7}) {
        std::vector<float> x = draw.normal(count * block);
        x[block / 2] *= spread;
        if (spread < 1) x = draw.normal(count * block, spread);
        std::vector<int8_t> codes(x.size());
        std::vector<float> scales(count);
        std::vector<int32_t> sums(count);
        kernels.quantize(x.data(), count, block, codes.data(), scales.data(), sums.data());
        outcome.add(codes);
        outcome.add(sums);
        outcome.add_bits(scales);
      }
    }
  }
  return outcome;
}

Outcome multiply(const Kernels& kernels) {
  Draw draw;
  Outcome outcome;
  for (const int bits : {4, 8}) {
    for (const size_t block : {32, 64, 128}) {
      for (const size_t columns : {block, 3 * block}) {
        for (const size_t tiles : {1, 2}) {
          for (size_t count = 0; count < 20; count++) {
            const size_t rows = count + 2, blocks = columns / block;
            auto codes = draw.integers<uint8_t>(tiles * TILE * columns * bits / 8, 0, 255);
            auto halves = draw.integers<uint16_t>(tiles * TILE * blocks, 0, 0x3c00);  // up to 1, subnormal ones too
            auto x = draw.integers<int8_t>(rows * columns, -127, 127);
            if (count == 3) {  // the largest sums
              codes.assign(codes.size(), 255);
              x.assign(x.size(), 127);
            }
            std::vector<int32_t> sums(rows * blocks);
            for (size_t i = 0; i < x.size(); i++) sums[i / block] += x[i];
            std::vector<float> scales = draw.normal(rows * blocks), out(tiles * count * TILE);
            const auto index = draw.integers<uint32_t>(count, 0, static_cast<int>(rows) - 1);
            kernels.multiply({codes.data(), halves.data(), tiles, columns, bits, block},
                             {x.data(), scales.data(), sums.data(), columns, block}, index.data(), count, out.data());
            outcome.add(out);
          }
        }
      }
    }
  }
  return outcome;
}

Outcome every_half(const Kernels& kernels) {
  // A weight of ones: what is left of a product is the scale.
  Outcome outcome;
  std::vector<uint8_t> codes(TILE * STEP, 129);
  std::vector<int8_t> x(STEP);
  x[0] = 1;
  float scale = 1;
  int32_t sum = 1;
  const uint32_t index = 0;
  for (uint32_t first = 0; first < 0x10000; first += TILE) {
    if ((first & 0x7c00) == 0x7c00) continue;  // infinite, or NaN
    std::vector<uint16_t> halves(TILE);
    std::vector<float> out(TILE);
    for (size_t i = 0; i < TILE; i++) halves[i] = static_cast<uint16_t>(first + i);
    kernels.multiply({codes.data(), halves.data(), 1, STEP, 8, STEP}, {x.data(), &scale, &sum, STEP, STEP}, &index, 1,
                     out.data());
    outcome.add_bits(out);
  }
  return outcome;
}

Outcome rms_norm(const Kernels& kernels) {
  Draw draw;
  Outcome outcome;
  for (const size_t size : {1, 15, 16, 31, 32, 33, 100, 1024}) {
    const std::vector<float> x = draw.normal(size), weight = draw.normal(size);
    std::vector<float> y(size);
    kernels.rms_norm(x.data(), weight.data(), 1e-5f, size, y.data());
    outcome.add(y);
  }
  return outcome;
}

Outcome swiglu(const Kernels& kernels) {
  Draw draw;
  Outcome outcome;
  for (const size_t size : {16, 48, 1024}) {
    for (const float spread : {1.f, 200.f}) {
      const std::vector<float> gate = draw.normal(size, spread), up = draw.normal(size);
      std::vector<float> y(size);
      kernels.swiglu(gate.data(), up.data(), size, y.data());
      outcome.add(y);
    }
  }
  return outcome;
}

Outcome dot(const Kernels& kernels) {
  Draw draw;
  Outcome outcome;
  for (size_t size = 0; size < 100; size++) {
    const std::vector<float> x = draw.normal(size), y = draw.normal(size);
    outcome.add(std::vector<float>{kernels.dot(x.data(), y.data(), size)});
  }
  return outcome;
}

Outcome add(const Kernels& kernels) {
  Draw draw;
  Outcome outcome;
  for (const size_t size : {16, 48, 1024}) {
    const std::vector<float> x = draw.normal(size);
    std::vector<float> y = draw.normal(size);
    kernels.add(x.data(), -1.7f, size, y.data());
    outcome.add(y);
  }
  return outcome;
}

Outcome attend(const Kernels& kernels) {
  Draw draw;
  Outcome outcome;
  const struct {
    size_t first, last;
  } ranges[] = {{0, 1}, {0, 16}, {0, 32}, {5, 37}, {3, 100}, {0, 300}};
  for (const size_t size : {16, 32, 48, 128, 144}) {
    for (const size_t count : {1, 3, 8, 65}) {
      for (const auto [first, last] : ranges) {
        const std::vector<float> queries = draw.normal(count * size, 0.1f), keys = draw.normal(last * size),
                                 values = draw.normal(last * size);
        const auto visible = draw.integers<uint32_t>(count, 0, static_cast<int>(last) + 4);
        std::vector<float> sums = draw.normal(count * size), totals(count, 1), largest(count, first > 3 ? -INFINITY : 2);
        kernels.attend(queries.data(), visible.data(), count, keys.data(), values.data(), size, first, last, sums.data(),
                       largest.data(), totals.data());
        for (float& x : largest) x = std::isinf(x) ? -1 : x;
        outcome.add(sums);
        outcome.add(largest);
        outcome.add(totals);
      }
    }
  }
  return outcome;
}

Outcome tile_words(const Kernels& kernels) {
  Draw draw;
  Outcome outcome;
  for (const size_t count : {1, 8, 15, 16, 17, 40}) {
    const size_t stride = 4 * count + 12;
    const auto rows = draw.integers<uint8_t>(TILE * stride, 0, 255);
    std::vector<uint8_t> out(TILE * 4 * count);
    kernels.tile_words(rows.data(), stride, count, 0, out.data());
    outcome.add(out);
  }
  return outcome;
}

Outcome tile_halves(const Kernels& kernels) {
  Draw draw;
  Outcome outcome;
  for (const size_t count : {1, 8, 31, 32, 33, 80}) {
    const size_t stride = count + 3;
    const auto rows = draw.integers<uint16_t>(TILE * stride, 0, 0xffff);
    std::vector<uint16_t> out(TILE * count);
    kernels.tile_halves(rows.data(), stride, count, 0, out.data());
    outcome.add(out);
  }
  return outcome;
}

Outcome evens_first(const Kernels& kernels) {
  Draw draw;
  Outcome outcome;
  for (const size_t count : {32, 96}) {
    auto codes = draw.integers<int8_t>(count, -127, 127);
    kernels.evens_first(codes.data(), count);
    outcome.add(codes);
  }
  return outcome;
}

Outcome dequantize(const Kernels& kernels) {
  Draw draw;
  Outcome outcome;
  for (const int bits : {4, 8}) {
    for (const size_t block : {32, 64, 128}) {
      const size_t columns = 3 * block;
      const auto codes = draw.integers<uint8_t>(columns * bits / 8, 0, 255);
      const auto scales = draw.integers<uint16_t>(3, 0, 0x3c00);
      std::vector<float> out(columns);
      kernels.dequantize(codes.data(), scales.data(), columns, bits, block, out.data());
      outcome.add_bits(out);
    }
  }
  return outcome;
}

Outcome widen(const Kernels& kernels) {
  Outcome outcome;
  std::vector<uint16_t> halves(0x10000 - 1);  // every one but the last
  for (size_t i = 0; i < halves.size(); i++) halves[i] = static_cast<uint16_t>(i);
  std::vector<float> out(halves.size());
  kernels.widen(halves.data(), halves.size(), out.data());
  outcome.add_bits(out);
  return outcome;
}

Outcome multiply_floats(const Kernels& kernels) {
  Draw draw;
  Outcome outcome;
  for (const size_t columns : {1, 15, 16, 33, 200}) {
    for (const size_t rows : {1, 5, 16}) {
      for (size_t count = 0; count < 14; count++) {
        const size_t stride = columns + 5;
        const std::vector<float> weight = draw.normal(rows * columns), x = draw.normal((count + 1) * stride);
        const auto index = draw.integers<uint32_t>(count, 0, static_cast<int>(count));
        std::vector<float> out(count * TILE), given;
        kernels.multiply_floats({weight.data(), columns, columns}, rows, {x.data(), stride, columns}, index.data(),
                                count, out.data());
        for (size_t i = 0; i < count; i++) given.insert(given.end(), &out[i * TILE], &out[i * TILE] + rows);
        outcome.add(given);
      }
    }
  }
  return outcome;
}

const struct {
  const char* name;
  Outcome (*run)(const Kernels&);
} CASES[] = {
    {"quantize", quantize},       {"multiply", multiply},       {"float16", every_half},
    {"rms_norm", rms_norm},       {"swiglu", swiglu},           {"dot", dot},
    {"add", add},                 {"attend", attend},           {"tile_words", tile_words},
    {"tile_halves", tile_halves}, {"evens_first", evens_first}, {"dequantize", dequantize},
    {"widen", widen},             {"multiply_floats", multiply_floats},
};

bool same(const char* kernels, const char* name, const Outcome& found, const Outcome& plain) {
  for (size_t i = 0; i < plain.integers.size(); i++) {
    if (found.integers[i] == plain.integers[i]) continue;
    std::printf("%s: integer %zu of %s is %lld, expected %lld\n", kernels, i, name,
                static_cast<long long>(found.integers[i]), static_cast<long long>(plain.integers[i]));
    return false;
  }
  for (size_t i = 0; i < plain.numbers.size(); i++) {
    double squares = 0;
    for (const float x : plain.numbers[i]) squares += static_cast<double>(x) * x;
    const double allowed = CLOSE * std::sqrt(squares / plain.numbers[i].size());
    for (size_t j = 0; j < plain.numbers[i].size(); j++) {
      const float mine = found.numbers[i][j], exact = plain.numbers[i][j];
      if (std::abs(mine - exact) <= allowed) continue;
      std::printf("%s: number %zu of array %zu of %s is %g, expected %g\n", kernels, j, i, name, mine, exact);
      return false;
    }
  }
  return true;
}

int main() {
  bool all = true;
  for (const Kernels* kernels : {avx512_kernels(), avxvnni_kernels(), avx2_kernels(), neon_kernels()}) {
    if (kernels == nullptr) continue;
    std::printf("%s\n", kernels->name);
    for (const auto& [name, run] : CASES) all &= same(kernels->name, name, run(*kernels), run(*plain_kernels()));
  }
  return all ? 0 : 1;
}
