import { useText } from "../../i18n";
import { Page } from "../../ui";

export default function DistillPage() {
  const t = useText();
  return <Page title={t("distill.title")}>{null}</Page>;
}
