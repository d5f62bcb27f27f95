import {
  type InputHTMLAttributes,
  type ReactNode,
  type SelectHTMLAttributes,
  type TextareaHTMLAttributes,
  useId,
} from "react";

interface Described {
  label: string;
  hint?: ReactNode;
  error?: string | null;
  /** Whether the label is for screen readers alone. */
  bare?: boolean;
}

interface Wiring {
  id: string;
  "aria-describedby": string | undefined;
  "aria-invalid": true | undefined;
}

/** A label, a control, and what to know about it. `children` gets the attributes that tie them together. */
export function Field({ label, hint, error, bare, children }: Described & { children: (tied: Wiring) => ReactNode }) {
  const id = useId();
  const described = [hint && `${id}-hint`, error && `${id}-error`].filter(Boolean).join(" ") || undefined;
  return (
    <div className="field">
      <label htmlFor={id} className={bare ? "unseen" : "field-label"}>
        {label}
      </label>
      {children({ id, "aria-describedby": described, "aria-invalid": error ? true : undefined })}
      {hint && (
        <span id={`${id}-hint`} className="field-hint">
          {hint}
        </span>
      )}
      {error && (
        <span id={`${id}-error`} className="field-error" role="alert">
          {error}
        </span>
      )}
    </div>
  );
}

type InputProps = Described & InputHTMLAttributes<HTMLInputElement>;

export function TextInput({ label, hint, error, bare, ...rest }: InputProps) {
  return (
    <Field {...described({ label, hint, error, bare })}>
      {(tied) => <input type="text" className="input" autoComplete="off" spellCheck={false} {...tied} {...rest} />}
    </Field>
  );
}

export function TextArea({
  label,
  hint,
  error,
  bare,
  ...rest
}: Described & TextareaHTMLAttributes<HTMLTextAreaElement>) {
  return (
    <Field {...described({ label, hint, error, bare })}>
      {(tied) => <textarea className="input" rows={3} {...tied} {...rest} />}
    </Field>
  );
}

type Choices = { value: string; label: string }[];

export function Select({
  label,
  hint,
  error,
  bare,
  choices,
  ...rest
}: Described & { choices: Choices } & SelectHTMLAttributes<HTMLSelectElement>) {
  return (
    <Field {...described({ label, hint, error, bare })}>
      {(tied) => (
        <select className="input" {...tied} {...rest}>
          {choices.map((choice) => (
            <option key={choice.value} value={choice.value}>
              {choice.label}
            </option>
          ))}
        </select>
      )}
    </Field>
  );
}

export function Check({ label, ...rest }: { label: ReactNode } & InputHTMLAttributes<HTMLInputElement>) {
  return (
    <label className="check">
      <input type="checkbox" {...rest} />
      <span>{label}</span>
    </label>
  );
}

function described(given: { [Name in keyof Described]: Described[Name] | undefined }): Described {
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as unknown as Described;
}
