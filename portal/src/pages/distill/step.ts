import type { AddressChanges } from "../../ui";
import type { Rows } from "./asking";
import type { Choices } from "./choices";

/** What each step is given. */
export interface StepProps {
  choices: Choices;
  /** Before curation. */
  allRows: Rows;
  /** What curation leaves of them. */
  rows: Rows;
  /** The chosen student, or the one proposed. */
  student: string | null;
  /** How many rows are trained on and held back. */
  training: number;
  validation: number;
  /** Writes into the address; null takes a name out. */
  set: (changes: AddressChanges) => void;
}
