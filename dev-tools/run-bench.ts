/** `./dev bench [--quick] [row...]`: hands over to bench/, which holds the rows and the two engines. */
import { runBench } from '../bench/main.ts';

const words = process.argv.slice(2);
process.exit(
  await runBench({ quick: words.includes('--quick'), only: words.filter((word) => !word.startsWith('--')) }),
);
