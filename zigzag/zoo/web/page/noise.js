"use strict";

/**
 * torch's generator on a CPU: MT19937, and normal numbers of it by Box and Muller. A seed is here the noise that it is
 * in `zigzag generate`.
 */
class Generator {
  constructor(seed) {
    this.words = new Uint32Array(624);
    this.words[0] = seed;
    for (let k = 1; k < 624; k++) {
      const word = this.words[k - 1];
      this.words[k] = Math.imul(1812433253, word ^ (word >>> 30)) + k;
    }
    this.used = 624;
  }

  word() {
    if (this.used === 624) this.twist();
    let word = this.words[this.used++];
    word ^= word >>> 11;
    word ^= (word << 7) & 0x9d2c5680;
    word ^= (word << 15) & 0xefc60000;
    return (word ^ (word >>> 18)) >>> 0;
  }

  twist() {
    const w = this.words;
    for (let k = 0; k < 624; k++) {
      const both = (w[k] & 0x80000000) | (w[(k + 1) % 624] & 0x7fffffff);
      w[k] = w[(k + 397) % 624] ^ (both >>> 1) ^ (both & 1 ? 0x9908b0df : 0);
    }
    this.used = 0;
  }

  /** Standard normal numbers, a multiple of 16 of them: eight pairs at a time, the cosines before the sines. */
  normal(count) {
    const z = Float32Array.from({ length: count }, () => (this.word() & 0xffffff) / 2 ** 24);
    for (let k = 0; k < count; k += 16) {
      for (let j = k; j < k + 8; j++) {
        const radius = Math.sqrt(-2 * Math.log(1 - z[j]));
        const angle = 2 * Math.PI * z[j + 8];
        z[j] = radius * Math.cos(angle);
        z[j + 8] = radius * Math.sin(angle);
      }
    }
    return z;
  }
}
