// Enough of CUDA C++ for a host compiler to run edgekd/preprocess/kernels.cu, one thread after the other.
#pragma once

#include <cmath>

#define __device__
#define __global__
#define __forceinline__ inline __attribute__((always_inline))

struct Index {
    unsigned x, y, z;
};
static Index blockIdx, blockDim, threadIdx;

using std::fmaf;

#define ENCODE_HALF
static inline unsigned short encode_half(float value)
{
    // _Float16 rounds to nearest, ties to even, as cvt.rn.f16.f32 does.
    _Float16 half = (_Float16)value;
    return __builtin_bit_cast(unsigned short, half);
}

// Runs a kernel over a grid of blocks, as <<<grid, block>>> would.
template <typename Kernel, typename... Arguments>
static void run_grid(Kernel kernel, Index grid, Index block, Arguments... arguments)
{
    blockDim = block;
    for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z)
        for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x)
                for (threadIdx.y = 0; threadIdx.y < block.y; ++threadIdx.y)
                    for (threadIdx.x = 0; threadIdx.x < block.x; ++threadIdx.x)
                        kernel(arguments...);
}
