import { useSearchParams } from "wouter";

/** Values by name; null takes a name out of the address. */
export type AddressChanges = Record<string, string | null>;

/** What the address bar says after its "?", and a way to change some of it, as a new place in the history or not. */
export function useAddress() {
  const [address, setAddress] = useSearchParams();
  const set = (changes: AddressChanges, { asPlace = false } = {}) =>
    setAddress(
      (before) => {
        const after = new URLSearchParams(before);
        for (const [name, value] of Object.entries(changes)) {
          if (value === null) after.delete(name);
          else after.set(name, value);
        }
        return after;
      },
      { replace: !asPlace },
    );
  return { address, set };
}
