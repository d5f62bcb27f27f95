import { LANGUAGES, type Language, useWords } from "../i18n";
import { Select } from "../ui";
import { THEMES, type Theme, useTheme } from "../ui/theme";
import styles from "./preferences.module.css";

/** The reader's language and light or dark. */
export function Preferences() {
  const { language, choose, t } = useWords();
  const { theme, choose: chooseTheme } = useTheme();
  return (
    <div className={styles.both}>
      <Select
        bare
        label={t("common.language")}
        value={language}
        choices={Object.entries(LANGUAGES).map(([value, label]) => ({ value, label }))}
        onChange={(event) => choose(event.target.value as Language)}
      />
      <Select
        bare
        label={t("common.theme")}
        value={theme}
        choices={THEMES.map((value) => ({ value, label: t(`common.theme_${value}`) }))}
        onChange={(event) => chooseTheme(event.target.value as Theme)}
      />
    </div>
  );
}
