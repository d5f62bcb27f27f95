// What pages are built of.
export { type AddressChanges, useAddress } from "./address";
export { BudgetBar } from "./budget_bar";
export { Button, ButtonLink, IconButton } from "./button";
export { copy } from "./clipboard";
export { type BarColor, DAY_SECONDS, DayBars, type Stack } from "./day_bars";
export { Confirm, Dialog } from "./dialog";
export { Check, Field, Select, TextArea, TextInput } from "./field";
export { type Format, useFormat } from "./format";
export { Icon, type IconName } from "./icons";
export { Interval } from "./interval";
export { Page } from "./page";
export { Panel } from "./panel";
export { type Column, Table } from "./table";
export { Tabs } from "./tabs";
export { useToast } from "./toast";
export {
  Badge,
  CopyButton,
  Empty,
  ErrorNote,
  Note,
  Progress,
  Snippet,
  Stat,
  type Tone,
  useErrorText,
  Waiting,
} from "./told";
export { When } from "./when";
