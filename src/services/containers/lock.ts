/** A fair mutual-exclusion lock for one object's operations: holders run one after another in order of asking. */

/** The lock. Never taken twice by one caller. */
export class Lock {
  #tail: Promise<void> = Promise.resolve();

  /** Waits for its turn; disposing the result lets the next one in. */
  async acquire(): Promise<Disposable> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const before = this.#tail;
    this.#tail = before.then(() => promise);
    await before;
    return { [Symbol.dispose]: resolve };
  }
}
