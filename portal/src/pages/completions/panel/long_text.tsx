import { useId, useMemo, useState } from "react";
import { useText } from "../../../i18n";
import { Button, CopyButton, useFormat } from "../../../ui";
import styles from "./panel.module.css";
import { pieces } from "./pieces";

const SHOWN_LETTERS = 4000;

interface LongTextProps {
  text: string;
  /** Code: in a frame of its own, with a name and a button that copies all of it. */
  code?: boolean;
  label?: string;
}

/** Text that somebody else wrote, however much. What is long is cut until one asks for all of it. */
export function LongText({ text, code = false, label }: LongTextProps) {
  const t = useText();
  const format = useFormat();
  const name = useId();
  const [all, setAll] = useState(false);
  const long = text.length > SHOWN_LETTERS * 1.5;
  // In pieces that the browser lays out only when they come into sight.
  const shown = useMemo(() => {
    if (all) return pieces(text, SHOWN_LETTERS);
    return long ? pieces(text.slice(0, 2 * SHOWN_LETTERS), SHOWN_LETTERS).slice(0, 1) : [text];
  }, [text, all, long]);
  const said = shown.map((piece, index) => (
    // biome-ignore lint/suspicious/noArrayIndexKey: the pieces of a text keep their places
    <div key={index} className={all ? styles.piece : undefined} dir={code ? "ltr" : "auto"}>
      {piece}
    </div>
  ));
  return (
    <div className={styles.long}>
      {label && (
        <div className="spread">
          <h3 id={name}>{label}</h3>
          <CopyButton text={text} />
        </div>
      )}
      {code ? (
        // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard
        <section className={styles.code} tabIndex={0} data-scrolls="" aria-labelledby={label ? name : undefined}>
          {said}
        </section>
      ) : (
        <div className="said">{said}</div>
      )}
      {long && !all && (
        <div>
          <Button onClick={() => setAll(true)}>
            {t("completions.show_all", { letters: format.number(text.length) })}
          </Button>
        </div>
      )}
    </div>
  );
}
