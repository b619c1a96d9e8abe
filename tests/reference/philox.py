"""Philox4x32-10 (Salmon, Moraes, Dror & Shaw, SC 2011)."""

from scipy.special import ndtri

WORD = 2**32


def philox(key, stream, counter):
    """Four 32-bit words: key and (counter, stream) are split into words, the low one first."""
    c = [counter % WORD, counter // WORD, stream % WORD, stream // WORD]
    k = [key % WORD, key // WORD]
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c[0], WORD)
        high1, low1 = divmod(0xCD9E8D57 * c[2], WORD)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B9) % WORD, (k[1] + 0xBB67AE85) % WORD]
    return c


def normal(key, stream, i):
    """Normal number i of a stream: by the quantile function from 52 random bits."""
    words = philox(key, stream, i // 2)
    high, low = words[2:] if i % 2 else words[:2]
    return ndtri(((high * WORD + low) // 2**12 + 0.5) / 2**52)


def uniform_int(key, stream, i, bound):
    """Whole number below bound: 64 random bits, as a fraction of 2^64, times bound."""
    high, low = philox(key, stream, i)[:2]
    return (high * WORD + low) * bound // 2**64
