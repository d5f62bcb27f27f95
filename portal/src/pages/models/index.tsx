import { useText } from "../../i18n";
import { Page } from "../../ui";

export default function ModelsPage() {
  const t = useText();
  return <Page title={t("models.title")}>{null}</Page>;
}
