import { useText } from "../../i18n";
import { Button, useFormat } from "../../ui";
import styles from "./list.module.css";
import type { Rows } from "./rows";

/** A button that shows what has arrived while the reader was elsewhere in the list. */
export function Arrived({ list, onShow }: { list: Rows; onShow: () => void }) {
  const t = useText();
  const format = useFormat();
  const { count, atLeast } = list.held;
  return (
    <div className={styles.arrived} role="status">
      {count > 0 && (
        <Button kind="primary" icon="up" onClick={onShow}>
          {atLeast ? t("completions.new_at_least", { number: format.number(count) }) : t("completions.new", { count })}
        </Button>
      )}
    </div>
  );
}
