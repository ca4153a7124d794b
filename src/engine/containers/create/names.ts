/** Container names: docker's grammar, and random ones of our own making. */
import { randomInt } from 'node:crypto';
import { GantryError } from '#types/errors.ts';

const NAME = /^\/?[a-zA-Z0-9][a-zA-Z0-9_.-]+$/;

/** The name without its slash. Throws docker's text. */
export function parseContainerName(name: string): string {
  if (!NAME.test(name)) {
    throw new GantryError('invalid', `Invalid container name (${name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`);
  }
  return name.startsWith('/') ? name.slice(1) : name;
}

const MOODS =
  'agile airy amber apt balmy brisk calm candid civil clear crisp daring deft eager earthy fair fleet fond frank fresh gentle glad golden hardy honest humble jaunty jolly keen kind lively loyal lucid lunar mellow merry mild modest neat nimble noble patient placid plucky polite proud quick quiet ready robust rosy sage serene sharp silent sincere snug solar solid spry steady sturdy sunny supple swift tidy tranquil trusty upbeat valiant vivid warm wise witty zesty'.split(
    ' ',
  );
const PEOPLE =
  'abel adleman al_kindi alhazen allen ampere anning archimedes aryabhata avogadro babbage backus banach bernoulli bessel bohr boltzmann boole bose brahe cantor carson cauchy cerf chandrasekhar church cori coulomb curie dalton darwin descartes dijkstra dirac easley einstein elion engelbart erdos euclid euler faraday fermat fermi feynman fibonacci fourier franklin galileo galois gauss germain goodall hamilton heisenberg herschel hertz hilbert hooke hopper hubble huygens hypatia johnson joule kepler khayyam knuth kovalevskaya lamarr laplace lavoisier leavitt leibniz liskov lovelace maxwell mayer mccarthy meitner mendel mirzakhani napier newton noether ohm pascal pasteur pauli payne perlman planck poincare ramanujan riemann ritchie rubin sagan shannon thompson turing volta wiles wu yonath'
    .split(' ')
    .map((name) => name.replaceAll('_', ''));

/** A random `mood_person`; later attempts carry a digit. */
export function randomName(attempt: number = 0): string {
  const name = `${MOODS[randomInt(MOODS.length)]}_${PEOPLE[randomInt(PEOPLE.length)]}`;
  return attempt === 0 ? name : `${name}${randomInt(10)}`;
}
